//! What each ref of a push means, decided from names alone.

/// One ref that a push wants to change.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RefCommand {
    /// Its full name: `refs/heads/main`.
    pub name: String,
    /// What it is; nothing for a new one.
    pub old: Option<String>,
    /// What it is to be; nothing to delete it.
    pub new: Option<String>,
}

/// What is to be done about a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Build, release and run this commit; the branch moves when that has succeeded.
    Deploy {
        /// The commit.
        commit: String,
        /// The branch's short name.
        branch: String,
    },
    /// Keep it; nothing is built.
    Store(String),
    /// Forget it.
    Delete,
    /// Not that.
    Refuse(String),
}

/// Decides about the refs of a push: `branch` is the deploy's, where that is fixed already;
/// otherwise `main`, or `master` where there is no `main`, becomes it.
pub fn plan_push(commands: &[RefCommand], branch: Option<&str>) -> Vec<(String, Planned)> {
    let pushes = |branch: &str| {
        let name = format!("refs/heads/{branch}");
        commands.iter().any(|command| command.name == name && command.new.is_some())
    };
    let branch = branch.or_else(|| ["main", "master"].into_iter().find(|branch| pushes(branch)));
    let plan = |command: &RefCommand| {
        let short = command.name.strip_prefix("refs/heads/");
        let ours = short.is_some() && short == branch;
        let planned = match (&command.new, short) {
            (None, _) if ours => Planned::Refuse("this branch is deployed".to_owned()),
            (None, _) => Planned::Delete,
            (Some(new), Some(short)) if ours => {
                Planned::Deploy { commit: new.clone(), branch: short.to_owned() }
            }
            (Some(new), _) if short.is_some() || command.name.starts_with("refs/tags/") => {
                Planned::Store(new.clone())
            }
            (Some(_), _) => Planned::Refuse("only branches and tags are kept here".to_owned()),
        };
        (command.name.clone(), planned)
    };
    commands.iter().map(plan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> RefCommand {
        RefCommand { name: name.to_owned(), old: None, new: Some("c".to_owned()) }
    }

    fn delete(name: &str) -> RefCommand {
        RefCommand { name: name.to_owned(), old: Some("c".to_owned()), new: None }
    }

    fn kinds(commands: &[RefCommand], branch: Option<&str>) -> String {
        let letter = |(_, planned): &(String, Planned)| match planned {
            Planned::Deploy { .. } => 'd',
            Planned::Store(_) => 's',
            Planned::Delete => 'x',
            Planned::Refuse(_) => 'r',
        };
        plan_push(commands, branch).iter().map(letter).collect()
    }

    #[test]
    fn the_first_of_main_and_master_becomes_the_branch() {
        let (main, master) = (set("refs/heads/main"), set("refs/heads/master"));
        assert_eq!(kinds(&[set("refs/heads/main")], None), "d");
        assert_eq!(kinds(&[set("refs/heads/master")], None), "d");
        assert_eq!(kinds(&[master.clone(), main.clone()], None), "sd");
        assert_eq!(kinds(&[set("refs/heads/feature")], None), "s");
        assert_eq!(kinds(&[main, master], Some("master")), "sd");
    }

    #[test]
    fn other_refs_are_stored_and_strange_ones_refused() {
        let commands = [set("refs/tags/v1"), set("refs/notes/x"), delete("refs/heads/old")];
        assert_eq!(kinds(&commands, Some("main")), "srx");
        assert_eq!(kinds(&[delete("refs/heads/main")], Some("main")), "r");
        // A branch is named by the whole of its name.
        assert_eq!(kinds(&[set("refs/heads/x/main")], Some("main")), "s");
    }
}
