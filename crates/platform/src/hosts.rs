//! Where deploys answer.

use tolv_model::name::{Deploy as DeployPath, DeployName};
use tolv_store::Deploy;

use crate::platform::Platform;

impl Platform {
    /// Where a deploy answers: `http://shop.localhost:8080`.
    pub fn url_of(&self, deploy: &Deploy) -> String {
        match self.http().port() {
            80 => format!("http://{}", deploy.host),
            port => format!("http://{}:{port}", deploy.host),
        }
    }

    pub(super) fn host_of(&self, path: &DeployPath) -> String {
        let domain = &self.0.options.domain;
        match path.name == DeployName::production() || self.codebase().is_some() {
            true => format!("{}.{domain}", path.app),
            false => format!("{}-{}.{domain}", path.app, path.name),
        }
    }
}
