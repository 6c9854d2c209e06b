//! Which Pythons a codebase accepts.

use toml::{Table, Value};

use super::NAME;
use crate::Error;
use crate::toolchains::python::Want;
use crate::tree::Tree;

/// The wishes of `.python-version` (else `runtime.txt`), of the manifest and of the `Pipfile`.
pub(super) fn wants(
    tree: &Tree,
    manifest: Option<&Table>,
    pipfile: Option<&Table>,
) -> Result<Vec<Want>, Error> {
    let mut wants = Vec::new();
    let mut add = |text: &str, from: &str, read: fn(&str, &str) -> Option<Want>| {
        let want = read(text, from).ok_or_else(|| Error::Plan {
            builder: NAME,
            problem: format!("{from} is `{}`, which is no version of CPython", text.escape_debug()),
            help: "write a version such as `3.13`".to_owned(),
        })?;
        wants.push(want);
        Ok(())
    };
    for path in [".python-version", "runtime.txt"] {
        let text = tree.text(path)?.unwrap_or_default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        if let Some(line) = lines.into_iter().find(|line| !line.is_empty()) {
            add(line, path, Want::version)?;
            break;
        }
    }
    let text = |table: Option<&Table>, keys: &[&str]| {
        let (first, rest) = keys.split_first()?;
        let value = rest.iter().try_fold(table?.get(*first)?, |value, key| value.get(*key))?;
        value.as_str().map(str::to_owned)
    };
    if let Some(text) = text(manifest, &["project", "requires-python"]) {
        add(&text, "requires-python in pyproject.toml", Want::specifiers)?;
    } else if let Some(text) = poetry(manifest) {
        let from = "python in pyproject.toml";
        let wish = specifiers(&text);
        add(wish.as_deref().unwrap_or(&text), from, Want::specifiers)?;
    }
    for key in ["python_full_version", "python_version"] {
        if let Some(text) = text(pipfile, &["requires", key]).filter(|text| text != "*") {
            add(&text, &format!("{key} in Pipfile"), Want::version)?;
            break;
        }
    }
    Ok(wants)
}

/// The interpreter that Poetry's own form asks for.
fn poetry(manifest: Option<&Table>) -> Option<String> {
    let poetry = manifest?.get("tool")?.get("poetry")?;
    let python = poetry.get("dependencies")?.get("python")?;
    let text = python.as_str().or_else(|| python.get("version").and_then(Value::as_str))?;
    // `||` says either of two ranges, which no list of specifiers can: Poetry itself will tell.
    (!text.contains('|')).then(|| text.to_owned())
}

/// Poetry's constraint as specifiers: `^3.11`, `~3.11`, `3.11.*`, `>=3.8,<4`, `*`.
fn specifiers(text: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (sign, version) = match part.strip_prefix(['^', '~']) {
            Some(version) if !version.starts_with('=') => (part.chars().next()?, version.trim()),
            _ if part == "*" => continue,
            _ if part.starts_with(|c: char| c.is_ascii_digit()) => {
                parts.push(format!("=={part}"));
                continue;
            }
            _ => {
                parts.push(part.to_owned());
                continue;
            }
        };
        let numbers: Option<Vec<u64>> =
            version.split('.').map(|number| number.parse().ok()).collect();
        let numbers = numbers?;
        // `^3.11` lets the first number that is not 0 be, `~3.11` the second.
        let fixed = match sign {
            '^' => numbers.iter().position(|&number| number != 0).unwrap_or(numbers.len() - 1),
            _ => usize::from(numbers.len() > 1),
        };
        let mut next: Vec<u64> = numbers[..=fixed].to_vec();
        next[fixed] = next[fixed].checked_add(1)?;
        let next: Vec<String> = next.iter().map(u64::to_string).collect();
        parts.push(format!(">={version},<{}", next.join(".")));
    }
    Some(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::specifiers;

    #[test]
    fn poetrys_constraints() {
        for (text, wish) in [
            ("^3.11", ">=3.11,<4"),
            ("~3.11", ">=3.11,<3.12"),
            ("^3.8.1", ">=3.8.1,<4"),
            ("~3", ">=3,<4"),
            ("3.11.*", "==3.11.*"),
            (">=3.8, <4.0", ">=3.8,<4.0"),
            ("~=3.8", "~=3.8"),
            ("*", ""),
        ] {
            assert_eq!(specifiers(text).as_deref(), Some(wish), "{text}");
        }
        assert_eq!(specifiers("^x"), None);
        assert_eq!(specifiers("^18446744073709551615"), None);
    }
}
