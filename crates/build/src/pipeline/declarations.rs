//! What the codebase says of itself: its Procfile and app.json.

use std::collections::BTreeMap;
use std::path::Path;

use tolv_model::app_json::AppJson;
use tolv_model::name::ProcessType;
use tolv_model::procfile::Procfile;

use crate::plan::Plan;
use crate::tree::Tree;
use crate::{Error, Event, files};

/// What the codebase's two declarative files say.
pub(super) struct Files {
    pub(super) procfile: Option<Procfile>,
    pub(super) app_json: AppJson,
}

/// Names what app.json says of process types that there are none of.
pub(super) fn unknown_types(
    app_json: &AppJson,
    types: &BTreeMap<ProcessType, String>,
) -> Vec<String> {
    let is_other = |kind: &&ProcessType| {
        !types.contains_key(*kind) && !matches!(kind.as_str(), "release" | "run")
    };
    let known: Vec<_> = types.keys().map(ProcessType::as_str).collect();
    let keys = [
        ("formation", app_json.formation.keys().collect::<Vec<_>>()),
        ("healthchecks", app_json.health_checks.keys().collect()),
    ];
    let warnings = keys.iter().flat_map(|(key, kinds)| {
        kinds.iter().copied().filter(is_other).map(move |kind| (key, kind))
    });
    let text = |(key, kind): (&&str, &ProcessType)| {
        format!(
            "`{key}.{kind}` of app.json has no effect: there is no process type `{kind}`, only {}",
            known.join(", ")
        )
    };
    warnings.map(text).collect()
}

pub(super) fn declared(tree: &Tree, events: &mut dyn FnMut(Event)) -> Result<Files, Error> {
    let manifest = |error| Error::Manifest(Box::new(error));
    let procfile = procfile(tree)?;
    let app_json = match tree.read("app.json")? {
        Some(bytes) => AppJson::parse(&bytes).map_err(manifest)?,
        None => AppJson::default(),
    };
    for warning in &app_json.warnings {
        events(Event::Warning(warning.to_string()));
    }
    Ok(Files { procfile, app_json })
}

/// The Procfile of a codebase.
pub(super) fn procfile(tree: &Tree) -> Result<Option<Procfile>, Error> {
    let manifest = |error| Error::Manifest(Box::new(error));
    match tree.read("Procfile")? {
        Some(bytes) => Ok(Some(Procfile::parse(&bytes).map_err(manifest)?)),
        None => Ok(None),
    }
}

/// The Procfile that buildpacks have left in a folder; what is a link is none.
pub(super) fn procfile_of(app: &Path) -> Result<Option<Procfile>, Error> {
    let path = app.join("Procfile");
    match files::read(&path) {
        Ok(bytes) => {
            let parsed = Procfile::parse(&bytes);
            Ok(Some(parsed.map_err(|error| Error::Manifest(Box::new(error)))?))
        }
        Err(error) if files::is_missing_or_link(&error) => Ok(None),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// The Procfile's word stands; the builder fills in what it does not say.
pub(crate) fn process_types(
    plan: &Plan,
    procfile: Option<&Procfile>,
) -> Result<BTreeMap<ProcessType, String>, Error> {
    let mut types = match procfile {
        Some(_) => BTreeMap::new(),
        None => plan.process_types.clone(),
    };
    if let Some(procfile) = procfile {
        types.extend(procfile.iter().map(|(kind, command)| (kind.clone(), command.to_owned())));
    }
    if types.is_empty() {
        return Err(Error::Plan {
            builder: plan.builder,
            problem: "nothing says how to run this codebase".to_owned(),
            help: "add a `Procfile` with a line such as `web: ./server --port $PORT`".to_owned(),
        });
    }
    Ok(types)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_procfile_wins_over_the_builder() {
        let mut plan = Plan::new("go", 1);
        plan.process_types.insert(ProcessType::web(), "bin/shop".to_owned());
        let none = process_types(&plan, None).unwrap();
        assert_eq!(none[&ProcessType::web()], "bin/shop");
        let procfile = Procfile::parse(b"worker: bin/work\n").unwrap();
        let given = process_types(&plan, Some(&procfile)).unwrap();
        assert_eq!(given.keys().map(ProcessType::as_str).collect::<Vec<_>>(), ["worker"]);
        plan.process_types.clear();
        assert!(process_types(&plan, None).is_err());
    }
}
