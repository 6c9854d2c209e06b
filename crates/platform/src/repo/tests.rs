use std::path::Path;

use tolv_testkit::{Home, git};

use super::*;

struct Bed {
    home: Home,
    repos: Repos,
}

fn deploy(text: &str) -> Deploy {
    text.parse().unwrap()
}

fn app() -> AppName {
    "shop".parse().unwrap()
}

impl Bed {
    fn new() -> Self {
        let home = Home::new();
        let path = OsStr::new("/usr/local/bin:/usr/bin:/bin");
        let repos = Repos::at(&home.path().join("git"), path);
        repos.set_up(Path::new("/bin/true")).unwrap();
        repos.create(&app()).unwrap();
        Self { home, repos }
    }

    /// A commit in a codebase, brought into the repository without a push.
    fn commit(&self, codebase: &str, text: &str) -> String {
        self.home.write(&format!("{codebase}/file"), text);
        let folder = self.home.path().join(codebase);
        let commit = git::commit(&folder);
        let dir = self.repos.dir(&app());
        git::git(
            &folder,
            &["push", "--quiet", dir.to_str().unwrap(), "HEAD:refs/tmp/x", "--force"],
        );
        commit
    }
}

#[test]
fn names_mean_commits_of_ones_own_deploy() {
    let bed = Bed::new();
    let (production, staging) = (deploy("shop/production"), deploy("shop/staging"));
    let commit = bed.commit("one", "1");
    bed.repos.move_branch(&staging, "main", &commit).unwrap();
    let resolve = |deploy, rev: &str| bed.repos.resolve(deploy, rev).unwrap();
    assert_eq!(resolve(&staging, "main"), Some(commit.clone()));
    assert_eq!(resolve(&production, "main"), None, "another deploy's branch");
    assert_eq!(resolve(&production, &commit[..8]), Some(commit.clone()));
    for nonsense in ["", "--all", "nobody", "HEAD^{/x}", "a..b", "refs/../x"] {
        assert_eq!(resolve(&staging, nonsense), None, "{nonsense}");
    }
    bed.repos.remove_deploy(&staging).unwrap();
    assert_eq!(resolve(&staging, "main"), None);
    bed.repos.create(&app()).unwrap();
    assert_eq!(resolve(&production, &commit), Some(commit), "making it again changes nothing");
}

#[test]
fn codebases_are_told_apart_by_their_roots() {
    let bed = Bed::new();
    let (one, two) = (bed.commit("one", "1"), bed.commit("one", "2"));
    let other = bed.commit("other", "other");
    let roots = |commit: &str| bed.repos.roots(&app(), commit).unwrap();
    assert_eq!(roots(&two), std::slice::from_ref(&one));
    assert!(shares_root(&roots(&one), &roots(&two)));
    assert!(!shares_root(&roots(&one), &roots(&other)));
    assert!(shares_root(&[], &roots(&other)), "the first codebase is the app's");
    assert_eq!(bed.repos.ahead_behind(&app(), &two, &one).unwrap(), (1, 0));
    assert_eq!(bed.repos.ahead_behind(&app(), &two, &other).unwrap(), (2, 1));
    assert_eq!(bed.repos.describe(&app(), &two).unwrap().unwrap().subject, "A commit");
    assert_eq!(bed.repos.describe(&app(), &"0".repeat(40)).unwrap(), None);
}

#[test]
fn what_is_released_outlives_a_force_push() {
    let bed = Bed::new();
    let production = deploy("shop/production");
    let first = bed.commit("one", "1");
    bed.repos.move_branch(&production, "main", &first).unwrap();
    let other = bed.commit("other", "other");
    bed.repos.move_branch(&production, "main", &other).unwrap();
    bed.repos.keep(&app(), &[first.clone(), other.clone()].into()).unwrap();
    let refs = || {
        let dir = bed.repos.dir(&app());
        git::git(&dir, &["for-each-ref", "--format=%(refname)"])
    };
    assert!(refs().contains(&format!("kept/{first}")));
    bed.repos.keep(&app(), &[other.clone()].into()).unwrap();
    assert!(!refs().contains(&format!("kept/{first}")) && refs().contains(&other));
}

#[test]
fn strange_ref_names_are_refused() {
    let bed = Bed::new();
    let production = deploy("shop/production");
    let commit = bed.commit("one", "1");
    for bad in ["refs/heads/../x", "refs/heads/a b", "refs/heads/-x/.y", "refs/heads/x.lock", ""] {
        let error = bed.repos.set_ref(&production, bad, &commit).unwrap_err();
        assert!(matches!(error, RepoError::BadRef(_)), "{bad}");
    }
}
