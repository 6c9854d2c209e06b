use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tolv_build::{GitAccess, GitCommand, GitLimits, GitSandbox};
use tolv_model::name::{AppName, Deploy};
use tolv_platform::Image;
use tolv_platform::repo::{RefChange, RepoError, Repos, shares_root};
use tolv_sandbox::{Choice, Machine, NetworkChoice, Spawner};
use tolv_testkit::{Home, git};

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
        let program = Path::new(env!("CARGO_BIN_EXE_platform-spawner"));
        let spawner = Spawner::start(program, &[]).unwrap();
        let (level, _) =
            Machine::probe(&spawner, NetworkChoice::Auto).unwrap().choose(Choice::Auto).unwrap();
        let git = GitSandbox { spawner, level, limits: GitLimits::default() };
        let image = Image::at(home.path(), Path::new("/bin/true"), Path::new("/bin/true"));
        let repos = Repos::at(&home.path().join("git"), git, 0, image);
        repos.set_up().unwrap();
        repos.create(&app()).unwrap();
        Self { home, repos }
    }

    /// A commit in a codebase, brought into the repository without a push.
    fn commit(&self, codebase: &str, text: &str) -> String {
        self.home.write(&format!("{codebase}/file"), text);
        let folder = self.home.path().join(codebase);
        let commit = git::commit(&folder);
        let dir = self.repos.dir(&app());
        let fetch = ["fetch", "--quiet", "--force", folder.to_str().unwrap(), "HEAD:refs/tmp/x"];
        git::git(&dir, &fetch);
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
    for n in 0..30 {
        let name = format!("refs/namespaces/staging/refs/tags/v{n}");
        git::git(&bed.repos.dir(&app()), &["update-ref", &name, &commit]);
    }
    bed.repos.remove_deploy(&staging).unwrap();
    assert_eq!(resolve(&staging, "main"), None);
    let refs = git::git(&bed.repos.dir(&app()), &["for-each-ref", "refs/namespaces/staging/"]);
    assert_eq!(refs, "");
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
fn a_history_of_many_roots_is_refused() {
    let bed = Bed::new();
    let first = bed.commit("one", "1");
    let dir = bed.repos.dir(&app());
    let tree = git::git(&dir, &["rev-parse", &format!("{first}^{{tree}}")]);
    let commit = |parents: &[String]| {
        let mut words = vec!["commit-tree", &tree, "-m", "x"];
        parents.iter().for_each(|parent| words.extend(["-p", parent]));
        git::git(&dir, &words)
    };
    let roots: Vec<_> = (0..257)
        .map(|n| {
            let message = format!("root {n}");
            git::git(&dir, &["commit-tree", &tree, "-m", &message])
        })
        .collect();
    let known = bed.repos.roots(&app(), &commit(&roots[..256])).unwrap();
    assert_eq!(known.len(), 256);
    let error = bed.repos.roots(&app(), &commit(&roots)).unwrap_err();
    assert!(matches!(error, RepoError::TooManyRoots), "{error}");
}

#[test]
fn a_hundred_thousand_roots_are_refused_soon() {
    const MANY: usize = 100_000;
    let bed = Bed::new();
    // Each of the merges is newer than all roots, so that git sorts each root behind all others.
    let mut stream = "blob\nmark :1\ndata 2\nx\n\n".to_owned();
    let by = |time: usize| format!("committer A <a@b> {time} +0000");
    for n in 1..=MANY {
        let mark = n + 1;
        let text = n.to_string();
        write!(
            stream,
            "reset refs/tmp/x\ncommit refs/tmp/x\nmark :{mark}\n{}\ndata {}\n{text}\n\
             M 100644 :1 file\n\n",
            by(1000),
            text.len()
        )
        .unwrap();
    }
    let mut before = 2;
    for n in 2..=MANY {
        let mark = MANY + n + 1;
        write!(
            stream,
            "commit refs/tmp/main\nmark :{mark}\n{}\ndata 1\nm\nfrom :{before}\nmerge :{}\n\n",
            by(2000 + n),
            n + 1
        )
        .unwrap();
        before = mark;
    }
    let dir = bed.repos.dir(&app());
    let stream = bed.home.write("stream", &stream);
    let mut import = std::process::Command::new("git");
    import.args(["-c", "safe.directory=*", "fast-import", "--quiet"]).current_dir(&dir);
    let status = import.stdin(fs::File::open(stream).unwrap()).status().unwrap();
    assert!(status.success(), "{status}");
    let tip = git::git(&dir, &["rev-parse", "refs/tmp/main"]);
    let began = std::time::Instant::now();
    let error = bed.repos.roots(&app(), &tip).unwrap_err();
    assert!(matches!(error, RepoError::TooManyRoots), "{error}");
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
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
    for bad in [
        "refs/heads/../x",
        "refs/heads/a b",
        "refs/heads/-x/.y",
        "refs/heads/x.lock",
        "",
        "refs/heads/\u{202e}egpj",
    ] {
        let set = RefChange { name: bad.to_owned(), old: None, object: Some(commit.clone()) };
        let name = "refs/heads/good".to_owned();
        let remove = RefChange { name: name.clone(), old: None, object: None };
        bed.repos.change_refs(&production, &[remove]);
        let good = RefChange { name, old: None, object: Some(commit.clone()) };
        let done = bed.repos.change_refs(&production, &[set, good]);
        assert_eq!(done.refused, [Some(0), None], "{bad}");
        assert!(matches!(done.errors[0], RepoError::BadRef(_)), "{bad}");
    }
}

#[test]
fn one_bad_ref_takes_none_of_the_others_along() {
    let bed = Bed::new();
    let production = deploy("shop/production");
    let commit = bed.commit("one", "1");
    let set = |name: &str| {
        let object = Some(commit.clone());
        RefChange { name: name.to_owned(), old: None, object }
    };
    let change = |changes: &[RefChange]| bed.repos.change_refs(&production, changes);
    let many: Vec<_> = (0..1000).map(|n| set(&format!("refs/tags/v{n}"))).collect();
    assert!(change(&many).refused.iter().all(Option::is_none));
    // One below another, and an object that is not there.
    let none = RefChange { object: Some("1".repeat(40)), ..set("refs/tags/none") };
    let gone = RefChange { object: None, ..set("refs/tags/gone") };
    let done = change(&[set("refs/tags/v1/x"), set("refs/tags/new"), none.clone(), gone]);
    let is_refused: Vec<_> = done.refused.iter().map(Option::is_some).collect();
    assert_eq!(is_refused, [true, false, true, false], "{:?}", done.errors);
    assert!(done.errors.iter().all(|error| !error.to_string().contains("namespaces")));
    // More than git is asked about one by one: none is said to be done that is not.
    let none = |n| RefChange { name: format!("refs/tags/none{n}"), ..none.clone() };
    let mut changes: Vec<_> = (0..20).map(none).collect();
    let again = RefChange { old: Some(commit.clone()), ..set("refs/tags/v1") };
    changes.extend([set("refs/tags/last"), again]);
    let done = change(&changes);
    let refs = git::git(&bed.repos.dir(&app()), &["for-each-ref", "--format=%(refname)"]);
    for (change, refused) in changes.iter().zip(done.refused) {
        let name = format!("refs/namespaces/production/{}", change.name);
        assert_eq!(refs.lines().any(|line| line == name), refused.is_none(), "{name}");
    }
}

#[test]
fn git_sees_its_repository_and_cannot_change_its_settings() {
    let bed = Bed::new();
    bed.commit("one", "1");
    let repository = bed.repos.repository(&app());
    let secret = bed.home.write("git/other.git/secret", "x");
    let has_own_root = repository.sandbox().level.has_own_root();
    // An alias that begins with `!` is a shell line: whatever a git that was taken over would do.
    let run = |access, script: &str| {
        let alias = format!("alias.x=!{script}");
        repository.ask(&GitCommand::new(access, ["-c", &alias, "x"])).unwrap()
    };
    let answer = run(GitAccess::Write, &format!("! cat {}", secret.display()));
    assert_eq!(answer.code, 0, "it read what is beside its repository: {answer:?}");
    if has_own_root {
        let config = bed.repos.dir(&app()).join("config");
        let before = fs::read(&config).unwrap();
        for script in ["echo x >> config", "rm -f config", "mv config c", "chmod 666 config"] {
            let answer =
                run(GitAccess::Write, &format!("cd {} && {script}", repository.dir().display()));
            assert_ne!(answer.code, 0, "{script}");
        }
        assert_eq!(fs::read(&config).unwrap(), before);
        let answer = run(GitAccess::Read, &format!("touch {}/new", repository.dir().display()));
        assert_ne!(answer.code, 0);
    }
    if rustix::process::geteuid().is_root() && has_own_root {
        let answer = run(GitAccess::Read, "id -u");
        let uid: u32 = String::from_utf8(answer.out).unwrap().trim().parse().unwrap();
        assert!(uid >= tolv_sandbox::FIRST_UID, "{uid}");
    }
}

#[test]
fn what_was_planted_in_a_repository_runs_nothing_of_the_platforms() {
    let bed = Bed::new();
    let commit = bed.commit("one", "1");
    let dir = bed.repos.dir(&app());
    let ran = bed.home.path().join("ran");
    let script = format!("#!/bin/sh\ntouch {}\n", ran.display());
    let program = bed.home.write("git/shop.git/hooks/reference-transaction", &script);
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    git::git(&dir, &["config", "core.fsmonitor", program.to_str().unwrap()]);
    git::git(&dir, &["config", "alias.rev-list", &format!("!{}", program.display())]);
    bed.home.write("git/shop.git/objects/info/alternates", "/etc\n");
    let production = deploy("shop/production");
    bed.repos.move_branch(&production, "main", &commit).unwrap();
    bed.repos.roots(&app(), &commit).unwrap();
    bed.repos.keep(&app(), &[commit].into()).unwrap();
    assert!(!ran.exists());
}
