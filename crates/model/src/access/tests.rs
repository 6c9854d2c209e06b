use super::*;

const ACTS: [Act; 6] = [Act::View, Act::Deploy, Act::Config, Act::Run, Act::Manage, Act::Own];

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

#[test]
fn the_table_of_the_module_is_what_is_allowed() {
    let allowed = |role| {
        let grant = Grant { role, apps: GrantedApps::All };
        ACTS.map(|act| if grant.allows(act, Some(&app("shop"))) { 'x' } else { '-' })
            .iter()
            .collect::<String>()
    };
    assert_eq!(allowed(Role::View), "x-----");
    assert_eq!(allowed(Role::Deploy), "xx-x--");
    assert_eq!(allowed(Role::Config), "x-x---");
    assert_eq!(allowed(Role::Run), "x--x--");
    assert_eq!(allowed(Role::Admin), "xxxxxx");
}

#[test]
fn a_grant_for_one_app_is_for_no_other_and_not_for_all() {
    for role in Role::ALL {
        let grant = Grant { role, apps: app("shop").into() };
        for act in ACTS {
            assert!(!grant.allows(act, Some(&app("blog"))));
            assert!(!grant.allows(act, None));
        }
        assert!(grant.allows(Act::View, Some(&app("shop"))));
        assert!(!grant.allows(Act::Own, Some(&app("shop"))));
    }
}

#[test]
fn roles_have_names() {
    for role in Role::ALL {
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    assert!("owner".parse::<Role>().is_err());
}
