use super::*;

#[test]
fn a_failed_check_is_called_by_its_name_or_by_what_it_does() {
    let http = CheckAction::Http {
        path: "/up".to_owned(),
        port: None,
        headers: Vec::new(),
        content: None,
    };
    let named = HealthCheck { name: Some("alive".to_owned()), ..HealthCheck::new(http.clone()) };
    assert_eq!(described(&named, "status 500"), "alive: status 500");
    assert_eq!(described(&HealthCheck::new(http), "status 500"), "GET /up: status 500");
    let listening = HealthCheck::new(CheckAction::Listening { port: Some(1) });
    assert_eq!(described(&listening, "refused"), "not listening: refused");
    let command = HealthCheck::new(CheckAction::Command(vec!["check".to_owned()]));
    assert_eq!(described(&command, "`check` exited"), "`check` exited");
}
