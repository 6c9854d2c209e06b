//! What to do about an error.

use super::*;

impl Error {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            _ if self.kind() == Kind::Exhausted => {
                return self.shortage().map(|shortage| shortage.advice().to_owned());
            }
            Self::Build(error) => return error.help().map(str::to_owned),
            Self::Home(HomeError::Folder(error)) => return error.help(),
            Self::Home(HomeError::Held { .. }) => "stop that one first, or give this one a \
                                                   TOLV_HOME of its own"
                .to_owned(),
            Self::OtherHome { .. } => "give this one a TOLV_HOME of its own".to_owned(),
            Self::OtherDatabase { .. } => "nothing was changed, and what runs goes on: set DATABASE_URL to \
                                           that database, or put back a backup of it. To begin anew with \
                                           an empty one, give it an empty state folder (TOLV_HOME)"
                .to_owned(),
            Self::NoState { .. } => {
                "TOLV_HOME (and DATABASE_URL, TOLV_SECRET_KEY) are to be those \
                                     of that `tolv serve`"
                    .to_owned()
            }
            Self::NotOwner { owner, .. } => format!("run it as its owner: sudo -u '#{owner}' …"),
            Self::Store(tolv_store::Error::LastAdmin(_)) => {
                "make another one first: tolv tokens create --role admin".to_owned()
            }
            Self::Store(tolv_store::Error::Held(_)) => {
                "stop that one first, or give this one a DATABASE_URL of its own".to_owned()
            }
            Self::Store(tolv_store::Error::OtherSchema) => {
                "start the `tolv serve` of this version first, or use that version's program"
                    .to_owned()
            }
            Self::Listen(ListenError::Asked { .. }) => {
                "with port 0, as in 127.0.0.1:0, it takes any that is free".to_owned()
            }
            Self::IsLocal { instead, .. } => instead.clone(),
            Self::NoRelease(deploy) if deploy.name == DeployName::local() => {
                "wait until `tolv up` says that it is up".to_owned()
            }
            Self::NoRelease(_) => "push a commit first: git push tolv main".to_owned(),
            Self::SlugGone { commit: Some(commit), .. } => {
                format!("deploy its commit again: {commit}")
            }
            Self::SlugGone { commit: None, .. } => {
                "change the folder back to what it was: `tolv up` builds it again".to_owned()
            }
            Self::Repo(RepoError::Moved(_)) => "nothing was lost: git pull, then push again".to_owned(),
            Self::OtherCodebase { .. } => "if that is meant: tolv deploy --new-root, or \
                                           git push -o new-root"
                .to_owned(),
            Self::MissingConfig { names, file: Some(file) } => {
                let pairs: Vec<_> = names.iter().map(|name| format!("{name}=…")).collect();
                format!("set them in `{}`: {}", file.display(), pairs.join(" "))
            }
            Self::MissingConfig { names, file: None } => {
                let pairs: Vec<_> = names.iter().map(|name| format!("{name}=…")).collect();
                format!("tolv config set {}", pairs.join(" "))
            }
            Self::Key(KeyError::Missing { .. }) => {
                "put it back, as from a backup, or set TOLV_SECRET_KEY".to_owned()
            }
            Self::Store(tolv_store::Error::WrongKey) => {
                "put back the `secret-key` that belongs to the database, or set TOLV_SECRET_KEY"
                    .to_owned()
            }
            Self::Store(tolv_store::Error::Exchanged(_)) => {
                "what runs goes on: put the right database back at the address in DATABASE_URL"
                    .to_owned()
            }
            Self::Store(tolv_store::Error::ReadOnlyDatabase) => {
                "what runs goes on: the server is a standby, or was made read-only \
                 (default_transaction_read_only), as for a full disk; have its operator see to it, and \
                 try again"
                    .to_owned()
            }
            Self::Store(tolv_store::Error::Damaged { .. }) => {
                "put back a backup of it; a damaged one can be repaired with: sqlite3 FILE .recover"
                    .to_owned()
            }
            Self::Stopped(_) => "start it: tolv start".to_owned(),
            Self::ManyRuns { .. } => "end some: tolv run list, tolv run stop ID".to_owned(),
            Self::NotRecorded(_) => "ask for that next time: tolv run --record".to_owned(),
            Self::ReleasePhase { .. } => "to try it again: tolv releases retry".to_owned(),
            Self::DiskFull { advice, .. } => advice.clone(),
            Self::NotRecordable => "what runs goes on as it is, and ends with the platform alone \
                                    (systemctl stop tolv): have the operator see dmesg, repair the disk \
                                    and mount it again. A database elsewhere (DATABASE_URL) does not \
                                    need this disk"
                .to_owned(),
            Self::TooLarge(_) => {
                "ask for less, or have the operator raise TOLV_MAX_SIZE".to_owned()
            }
            Self::OverQuota { .. } => {
                "start fewer processes, or smaller ones (tolv scale, tolv limits); a release that \
                 failed is tried again then with: tolv releases retry"
                    .to_owned()
            }
            Self::NoSuchType { known, .. } => format!("there are {known}"),
            Self::Store(tolv_store::Error::Forged { what: "deploy", name, .. }) => format!(
                "put the row back from a backup of the database, or take it as it is: tolv releases \
                 accept -d {name} --confirm {name}; tolv stop and tolv destroy work all the same"
            ),
            Self::Store(tolv_store::Error::Forged { .. }) => {
                "put the row back from a backup of the database, or take it as it is with one of its \
                 deploys: tolv releases accept --confirm APP/DEPLOY; tolv destroy works all the same"
                    .to_owned()
            }
            Self::Store(tolv_store::Error::Ledger(_)) => {
                "see what was changed: tolv releases verify; to take it as it is: tolv releases accept"
                    .to_owned()
            }
            Self::Ledger { deploy, .. } => format!(
                "see what was changed: tolv releases verify; to take it as it is: tolv releases \
                 accept --confirm {deploy}"
            ),
            Self::Run(error) => return run_hint(error),
            Self::Store(error) if error.disk_fault() == Some(Shortage::DiskSpace) => {
                "nothing can be recorded any more, for what is reserved for that is used up too: \
                 remove files from the disk of the state folder, and try again"
                    .to_owned()
            }
            error if error.kind() == Kind::Full => {
                error.disk_fault().unwrap_or(Shortage::DiskSpace).advice().to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}

fn run_hint(error: &tolv_run::Error) -> Option<String> {
    let tolv_run::Error::Rollout { culprit, .. } = error else { return None };
    match culprit.reason {
        tolv_run::Reason::BootTimeout(_) => {
            Some("a web process must answer HTTP on the port in its PORT variable".to_owned())
        }
        tolv_run::Reason::CommandNotFound(_) => Some(format!(
            "check the line of `{}` in the Procfile, and that its program is a declared dependency",
            culprit.process.process_type
        )),
        _ => None,
    }
}
