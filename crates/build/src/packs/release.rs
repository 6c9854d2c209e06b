//! What `bin/release` prints: YAML with `default_process_types` and `config_vars`.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser};
use tolv_model::env::{EnvName, MAX_VALUE};
use tolv_model::name::ProcessType;

/// Most entries of each.
const MAX_ENTRIES: usize = 256;

/// What buildpacks say about a slug.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Release {
    /// Variables below the config.
    pub(super) config_vars: BTreeMap<String, String>,
    /// Where the Procfile has none of that name.
    pub(super) process_types: BTreeMap<ProcessType, String>,
    /// What has no effect.
    pub(super) warnings: Vec<String>,
}

/// Reads what a script printed, or says what is wrong with it.
pub(super) fn parse(answer: &[u8]) -> Result<Release, String> {
    let text = std::str::from_utf8(answer).map_err(|_| "prints what is not UTF-8".to_owned())?;
    let mut release = Release::default();
    for (path, value) in pairs(text)? {
        let [section, name] = path.as_slice() else { continue };
        match section.as_str() {
            "default_process_types" => match name.parse::<ProcessType>() {
                Ok(kind) if !value.trim().is_empty() => {
                    release.process_types.insert(kind, value.trim().to_owned());
                }
                Ok(_) => {}
                Err(error) => release.warnings.push(error.to_string()),
            },
            "config_vars" => match variable(name, &value) {
                Ok(()) => {
                    release.config_vars.insert(name.clone(), value);
                }
                Err(why) => release.warnings.push(format!("`{name}` {why}")),
            },
            _ => {}
        }
        if release.process_types.len() > MAX_ENTRIES || release.config_vars.len() > MAX_ENTRIES {
            return Err(format!("prints more than {MAX_ENTRIES} entries"));
        }
    }
    Ok(release)
}

fn variable(name: &str, value: &str) -> Result<(), &'static str> {
    let parsed = name.parse::<EnvName>().map_err(|_| "is not a variable name")?;
    if parsed.is_reserved() {
        return Err("is set by the platform, so that this has no effect");
    }
    if name == "PATH" {
        return Err("has no effect: a script in `.profile.d` extends it");
    }
    match value.len() > MAX_VALUE || value.contains('\0') {
        true => Err("has a value that no environment can carry"),
        false => Ok(()),
    }
}

/// The scalars of the first document that stand in mappings of scalars, with the keys that lead there.
fn pairs(text: &str) -> Result<Vec<(Vec<String>, String)>, String> {
    let mut pairs = Vec::new();
    // Of each mapping around here, the key whose value comes next; of a sequence, nothing ever.
    let mut open: Vec<Level> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| format!("prints what is not YAML: {error}"))?;
        match event {
            Event::MappingStart(..) => open.push(Level { is_mapping: true, key: None }),
            Event::SequenceStart(..) => open.push(Level { is_mapping: false, key: None }),
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                if let Some(level) = open.last_mut() {
                    level.key = None;
                }
            }
            Event::Scalar(value, ..) => {
                let path = open.iter().map(|level| level.key.clone()).collect::<Option<Vec<_>>>();
                let Some(level) = open.last_mut().filter(|level| level.is_mapping) else {
                    continue;
                };
                match level.key.take() {
                    None => level.key = Some(value.into_owned()),
                    Some(_) => pairs.extend(path.map(|path| (path, value.into_owned()))),
                }
            }
            // What it leads to is not looked up.
            Event::Alias(_) => return Err("prints an alias, which is not read here".to_owned()),
            Event::DocumentEnd => break,
            _ => {}
        }
    }
    Ok(pairs)
}

/// A mapping or sequence that is open.
struct Level {
    is_mapping: bool,
    key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_variables_are_read_and_the_rest_is_passed_over() {
        let text = "---\naddons:\n- heroku-postgresql\nconfig_vars:\n  RACK_ENV: production\n  \
                    GREETING: \"two words: here\"\n  PATH: /x\n  PORT: 1\ndefault_process_types:\n  \
                    web: bin/boot -p $PORT\n  rake: bundle exec rake\n  'a b': x\nother: {deep: {er: 1}}\n";
        let release = parse(text.as_bytes()).unwrap();
        let kinds: Vec<_> =
            release.process_types.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(kinds, [("rake", "bundle exec rake"), ("web", "bin/boot -p $PORT")]);
        let vars: Vec<_> = release.config_vars.keys().map(String::as_str).collect();
        assert_eq!(vars, ["GREETING", "RACK_ENV"]);
        assert_eq!(release.warnings.len(), 3, "{:?}", release.warnings);
        for empty in ["", "--- {}\n", "---\n", "--- {}", "addons: []\n", "web\n"] {
            assert_eq!(parse(empty.as_bytes()).unwrap(), Release::default(), "{empty}");
        }
    }

    #[test]
    fn what_is_hostile_is_refused() {
        for (text, why) in [
            ("a: &a [x]\nb: *a\n", "an alias"),
            ("a: [", "not YAML"),
            ("config_vars:\n\t- x: {", "not YAML"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(parse(b"\xff").is_err());
        let many: String = (0..=MAX_ENTRIES).map(|n| format!("  t{n}: x\n")).collect();
        assert!(parse(format!("default_process_types:\n{many}").as_bytes()).is_err());
        // Deep nesting ends, whatever it says.
        let deep = "[".repeat(30_000);
        assert!(parse(deep.as_bytes()).is_err());
    }
}
