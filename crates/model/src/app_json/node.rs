//! JSON values with their path, read as what they should be.
//!
//! Each reading gives the value, or adds an error with place and path and gives nothing, so that
//! one pass finds everything that is wrong in a file.

use std::ops::{Range, RangeInclusive};

use super::json::{Member, Node, Value};
use crate::source::{Report, quote};

/// A value, where it stands in the file, and its path.
#[derive(Clone, Debug)]
pub(super) struct Place<'n> {
    /// As in `healthchecks.web[0].path`; of the root, `app.json`.
    pub(super) path: String,
    root: bool,
    node: &'n Node,
}

/// An object and its path.
#[derive(Clone, Debug)]
pub(super) struct Object<'n> {
    /// As [`Place::path`].
    pub(super) path: String,
    root: bool,
    span: Range<usize>,
    members: &'n [Member],
}

impl<'n> Place<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self { path: super::FILE.to_owned(), root: true, node }
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.node.span.clone()
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self.node.value, Value::Object(_))
    }

    /// Members of an object, elements of an array.
    pub(super) fn len(&self) -> usize {
        match &self.node.value {
            Value::Object(members) => members.len(),
            Value::Array(nodes) => nodes.len(),
            _ => 0,
        }
    }

    pub(super) fn object(&self, report: &mut Report<'_>) -> Option<Object<'n>> {
        let Value::Object(members) = &self.node.value else {
            self.wrong("an object in `{` and `}`", None, report);
            return None;
        };
        Some(Object { path: self.path.clone(), root: self.root, span: self.opening(), members })
    }

    pub(super) fn array(&self, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let Value::Array(nodes) = &self.node.value else {
            self.wrong("an array in `[` and `]`", None, report);
            return None;
        };
        let element =
            |(index, node)| Self { path: format!("{}[{index}]", self.path), root: false, node };
        Some(nodes.iter().enumerate().map(element).collect())
    }

    pub(super) fn string(&self, report: &mut Report<'_>) -> Option<&'n str> {
        self.string_or("put it in double quotes", report)
    }

    /// As [`Place::string`], with what to do where it is none.
    pub(super) fn string_or(&self, hint: &str, report: &mut Report<'_>) -> Option<&'n str> {
        let Value::String(string) = &self.node.value else {
            self.wrong("a string", Some(hint), report);
            return None;
        };
        Some(string)
    }

    pub(super) fn bool(&self, report: &mut Report<'_>) -> Option<bool> {
        let Value::Bool(value) = self.node.value else {
            self.wrong("`true` or `false`", None, report);
            return None;
        };
        Some(value)
    }

    /// A whole number in a range.
    pub(super) fn whole(&self, range: RangeInclusive<u64>, report: &mut Report<'_>) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Number(text) = &self.node.value else {
            self.wrong(&wanted, None, report);
            return None;
        };
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!("`{}` is {}; it takes {wanted}", self.path, quote(text));
            report.error(self.span(), message);
        }
        number
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(
        &self,
        words: &[(&str, T)],
        report: &mut Report<'_>,
    ) -> Option<T> {
        let string = self.string(report)?;
        let found = words.iter().find(|(word, _)| *word == string).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
            let message = format!(
                "`{}` is `\"{}\"`; it takes {}",
                self.path,
                quote(string),
                words.join(" or ")
            );
            report.error(self.span(), message);
        }
        found
    }

    fn wrong(&self, wanted: &str, hint: Option<&str>, report: &mut Report<'_>) {
        let is = match self.node.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let hint = match self.node.value {
            Value::Null => Some("leave the key out"),
            _ => hint,
        };
        let message = format!("`{}` is {is}; it takes {wanted}", self.path);
        let noted = report.error(self.opening(), message);
        if let Some(hint) = hint {
            noted.hint(hint);
        }
    }

    /// The value, or where it opens if it may be long.
    fn opening(&self) -> Range<usize> {
        match self.node.value {
            Value::Object(_) | Value::Array(_) => self.node.span.start..self.node.span.start + 1,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self.span(),
        }
    }
}

impl<'n> Object<'n> {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<Place<'n>> {
        self.member(key).map(|(_, place)| place)
    }

    /// A key's own span, and its value.
    pub(super) fn member(&self, key: &str) -> Option<(Range<usize>, Place<'n>)> {
        let member = self.members.iter().find(|member| member.key == key)?;
        Some((member.span.clone(), self.place(member)))
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, key: &str, report: &mut Report<'_>) -> Option<Place<'n>> {
        let place = self.get(key);
        if place.is_none() {
            report.error(self.span.clone(), format!("`{}` has no `{key}`", self.path));
        }
        place
    }

    /// Where the object opens.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Key, its span, and its value.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'n str, Range<usize>, Place<'n>)> {
        self.members.iter().map(|member| (&member.key[..], member.span.clone(), self.place(member)))
    }

    /// A warning for each key that is in neither list; the first is what the warning offers.
    pub(super) fn warn_unknown(&self, report: &mut Report<'_>, known: &[&str], silent: &[&str]) {
        let unknown = |member: &&Member| {
            let key = &&member.key[..];
            !known.contains(key) && !silent.contains(key)
        };
        for member in self.members.iter().filter(unknown) {
            let known: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
            report
                .warn(
                    member.span.clone(),
                    format!("key `{}` is not known and has no effect", self.path_of(&member.key)),
                )
                .hint(format!("known here: {}", known.join(", ")));
        }
    }

    fn place(&self, member: &'n Member) -> Place<'n> {
        Place { path: self.path_of(&member.key), root: false, node: &member.node }
    }

    fn path_of(&self, key: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let plain = !key.is_empty() && key.chars().all(plain);
        match (self.root, plain) {
            (true, _) => quote(key),
            (false, true) => format!("{}.{}", self.path, quote(key)),
            (false, false) => format!("{}[\"{}\"]", self.path, quote(key)),
        }
    }
}
