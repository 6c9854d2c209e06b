use super::*;

#[test]
fn what_says_which_programs_run_enters_no_build() {
    for name in
        ["PATH", "GIT_DIR", "GIT_SSH_COMMAND", "LD_PRELOAD", "LIBRARY_PATH", "BASH_ENV", "PORT"]
    {
        assert!(!name.parse::<EnvName>().unwrap().enters_builds(), "{name}");
    }
    for name in ["NEXT_PUBLIC_API", "NPM_TOKEN", "LANG", "GITHUB_TOKEN", "PROJECT_PATH"] {
        assert!(name.parse::<EnvName>().unwrap().enters_builds(), "{name}");
    }
}

fn name(text: &str) -> EnvName {
    text.parse().unwrap()
}

#[test]
fn a_value_is_any_bytes_but_nul_and_never_prints_itself() {
    let mut env = Env::default();
    env.set(name("KEY"), *b"-----BEGIN\n$x'\"#\xff\n").unwrap();
    assert_eq!(env.to_execve(), [b"KEY=-----BEGIN\n$x'\"#\xff\n".to_vec()]);
    assert_eq!(format!("{env:?}"), "Env({EnvName(\"KEY\"): ****})");
    assert_eq!(env.set(name("NO"), *b"a\0b"), Err(EnvError::Nul("NO".to_owned())));
}

#[test]
fn limits_are_kept_and_a_refusal_changes_nothing() {
    let mut env = Env::default();
    assert!(matches!(env.set(name("A"), vec![b'a'; MAX_VALUE + 1]), Err(EnvError::TooLong { .. })));
    for key in ["A", "B", "C"] {
        env.set(name(key), vec![b'a'; MAX_VALUE]).unwrap();
    }
    let before = env.clone();
    assert!(matches!(env.set(name("D"), vec![b'a'; MAX_VALUE]), Err(EnvError::TooLarge(_))));
    assert_eq!(env, before);
}

#[test]
fn the_names_of_the_platform_are_refused_in_config() {
    for key in ["PORT", "TOLV_APP", "DYNO"] {
        let error = Env::default().set_config(name(key), "x").unwrap_err();
        assert_eq!(error, EnvError::Reserved(key.to_owned()));
    }
    assert!("1A".parse::<EnvName>().is_err());
    assert!("A-B".parse::<EnvName>().is_err());
}
