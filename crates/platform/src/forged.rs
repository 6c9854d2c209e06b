//! Rows that were changed outside of the platform: they are told, and what is behind them can be stopped,
//! destroyed and accepted.

use jiff::Timestamp;
use tolv_model::formation::Formation;
use tolv_model::id::DeployId;
use tolv_model::name::Deploy as DeployPath;
use tolv_model::size::Sizes;
use tolv_store::{Deploy, ForgedRow, ForgedToken, Stored, StoredToken};

use super::error::Error;
use super::kept::{Kept, Place};
use super::platform::{Platform, lock};

/// Tokens that are read at once.
const TOKENS_AT_ONCE: usize = 200;
/// Rows that are reported as changed outside of the platform; lists have them all.
const MAX_FORGED_ROWS: usize = 100;
/// Characters of a forged row's texts that are shown.
const MAX_SHOWN: usize = 60;
/// The same of what is wrong with it.
const MAX_REASON: usize = 300;

/// What the audit log says of a row that is refused.
struct Refusal<'a> {
    action: &'a str,
    app: Option<&'a str>,
    deploy: Option<&'a str>,
    detail: &'a str,
}

fn shortened(text: &str) -> String {
    shortened_to(text, MAX_SHOWN)
}

fn shortened_to(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

impl Platform {
    /// Says in the log and in the audit log that a token was changed outside of the platform; once
    /// each while this platform runs.
    pub async fn report_forged_token(&self, forged: &ForgedToken) {
        let detail = format!("{:?} ({:?})", shortened(&forged.id), shortened(&forged.name));
        let what = match forged.was_revoked {
            true => "was revoked, and put back into the database",
            false => "was changed outside of the platform",
        };
        let said = format!("Token {detail} {what} and is refused: tolv tokens revoke ID");
        let line = Refusal { action: "token.forged", app: None, deploy: None, detail: &detail };
        self.report_forged(&forged.id, said, line).await;
    }

    /// The same of the row of an app or a deploy.
    pub(super) async fn report_forged_row(&self, row: &ForgedRow) {
        let why = shortened_to(&row.why, MAX_REASON);
        let path = shortened(&row.name).escape_debug().to_string();
        let (action, said) = match row.what {
            "app" => ("app.forged", format!("App {path} takes no push: {why}")),
            _ => ("deploy.forged", format!("Deploy {path} cannot be started: {why}")),
        };
        let (app, deploy) = match path.split_once('/') {
            Some((app, deploy)) => (app, Some(deploy)),
            None => (path.as_str(), None),
        };
        let line = Refusal { action, app: Some(app), deploy, detail: &why };
        self.report_forged(&format!("{} {}", row.what, row.id), said, line).await;
    }

    /// The same where a deploy was not read because of its row.
    pub(super) async fn report_forged_deploy(&self, path: &DeployPath, error: &Error) {
        if let Error::Store(tolv_store::Error::Forged { what: "deploy", .. }) = error
            && let Ok(Stored::Forged(row)) = self.0.store.stored_deploy(path).await
        {
            self.report_forged_row(&row).await;
        }
    }

    /// Says that a row was refused, and adds that to the audit log; once each while this platform runs.
    async fn report_forged(&self, row: &str, said: String, refusal: Refusal<'_>) {
        let is_new = {
            let mut reported = lock(&self.0.forged_rows);
            reported.len() < MAX_FORGED_ROWS && reported.insert(row.to_owned())
        };
        if !is_new {
            return;
        }
        self.say(said).await;
        let Refusal { action, app, deploy, detail } = refusal;
        let (store, now) = (&self.0.store, Timestamp::now());
        let line = store.audit("platform", action, app, deploy, detail, now).await;
        let settled = match line {
            Ok(line) => store.set_audit_outcome(&line, "refused").await,
            Err(error) => Err(error),
        };
        if settled.is_err() {
            // It is said again the next time.
            lock(&self.0.forged_rows).remove(row);
        }
    }

    /// Reports every token that was changed outside of the platform, and that some may be unknown.
    pub(super) async fn check_tokens(&self) -> Result<(), Error> {
        let unreadable = self.0.store.unreadable_spent();
        if unreadable > 0 {
            self.say(format!(
                "{unreadable} lines of {}, which says what was revoked, cannot be read: a token or \
                 drain that was revoked holds again if somebody puts it back into the database",
                self.0.home.join("anchors/spent").display()
            ))
            .await;
        }
        let mut after = None;
        loop {
            let page = self.0.store.tokens(after.as_deref(), TOKENS_AT_ONCE).await?;
            for stored in page.iter() {
                if let StoredToken::Forged(forged) = stored {
                    self.report_forged_token(forged).await;
                }
            }
            match page.last() {
                Some(last) if page.more && !last.id().is_empty() => {
                    after = Some(last.id().to_owned());
                }
                _ => return Ok(()),
            }
        }
    }

    /// What is known of a deploy, also where its row was changed outside of the platform: enough to
    /// stop and to destroy it.
    pub(super) async fn known_deploy(&self, path: &DeployPath) -> Result<Deploy, Error> {
        let error = match self.0.store.deploy(path).await {
            Err(error @ tolv_store::Error::Forged { .. }) => error,
            found => return Ok(found?),
        };
        let Stored::Forged(row) = self.0.store.stored_deploy(path).await? else {
            return Err(error.into());
        };
        // The row of another deploy may have been given this name.
        let recorded = self.0.store.recorded_deploy(path).await?;
        let recorded = recorded.filter(|id| id.as_str() == row.id);
        let controller = recorded.and_then(|id| self.controllers().get(&id).cloned());
        match controller.filter(|controller| controller.place.path == *path) {
            Some(controller) => self.stand_in(&controller.place).await,
            None => Err(error.into()),
        }
    }

    /// A deploy of which nothing counts but what it is called and which release is current.
    pub(super) async fn stand_in(&self, place: &Place) -> Result<Deploy, Error> {
        let ledger = self.audit(&place.id, false).await?;
        Ok(Deploy {
            id: place.id.clone(),
            app: place.app.clone(),
            name: place.path.clone(),
            host: place.host.clone(),
            branch: None,
            created: place.id.moment(),
            config_version: 0,
            current: ledger.current,
            commit: None,
            formation: Formation::default(),
            sizes: Sizes::default(),
            stack: None,
            stopped: false,
        })
    }

    /// Says which rows of apps and deploys were changed outside of the platform; what of such a deploy
    /// still runs is stopped, and the deploy can be stopped, destroyed and accepted. Deploys that hold
    /// have their controllers before.
    pub(super) async fn control_forged(&self) -> Result<(), Error> {
        let forged = self.0.store.forged_rows().await?;
        if forged.is_empty() {
            return Ok(());
        }
        let (kept, _) = Kept::all(&self.0.home, &self.0.store)?;
        for row in &forged {
            self.report_forged_row(row).await;
            if row.what != "deploy" {
                continue;
            }
            let Ok(id) = row.id.parse::<DeployId>() else { continue };
            let place = match kept.iter().find(|place| place.id == id) {
                Some(place) => Some(place.clone()),
                None => self.place_of_forged(&id, row).await,
            };
            // What it says takes nothing from a deploy that holds.
            let is_free = |place: &Place| {
                let taken = |other: &Place| other.path == place.path || other.host == place.host;
                !self.controllers().values().any(|controller| taken(&controller.place))
            };
            if let Some(place) = place.filter(is_free) {
                self.control(place)?;
            }
        }
        Ok(())
    }

    /// Where a deploy is whose row was changed: under the host that its name gives.
    async fn place_of_forged(&self, id: &DeployId, row: &ForgedRow) -> Option<Place> {
        let path: DeployPath = row.name.parse().ok()?;
        let app = self.app_id(&path.app).await.ok()?;
        let host = self.host_of(&path);
        Some(Place { id: id.clone(), app, path, host })
    }
}
