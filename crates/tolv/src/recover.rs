//! `tolv tokens recover`: a new token for the owner of a platform's state folder. It works on the
//! state itself, beside a `tolv serve` that runs.

use tolv_platform::{State, recover_token};

use crate::cli::Failure;
use crate::serve;
use crate::settings::Settings;

/// Makes the token; what to print.
pub(crate) fn recover(settings: &Settings) -> Result<String, Failure> {
    let home = settings.serve_home();
    home.check()
        .map_err(|error| Failure { hint: error.help(), ..Failure::new(error.to_string()) })?;
    let state = State {
        home: home.path(),
        database: serve::database(settings)?,
        secret_key: serve::secret_key(settings)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    runtime
        .block_on(recover_token(state))
        .map_err(|error| Failure { hint: error.hint(), ..Failure::new(error.chain()) })
}
