//! Rows that are authenticated: a code over every column that decides something, with a key that is
//! not in the database. Whoever can write to the database alone cannot make or change such a row.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::db::Store;

/// The column of the code.
const COLUMN: &str = "mac";

/// A column of a row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Null,
    Text(String),
    Number(i64),
}

impl Field {
    /// Its bytes, which no other value has: a mark of its kind, the length of a text, and the value.
    fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Null => into.push(0),
            Self::Text(text) => encode_text(text, into),
            Self::Number(number) => encode_number(*number, into),
        }
    }
}

fn encode_text(text: &str, into: &mut Vec<u8>) {
    into.push(1);
    into.extend_from_slice(&(text.len() as u64).to_be_bytes());
    into.extend_from_slice(text.as_bytes());
}

fn encode_number(number: i64, into: &mut Vec<u8>) {
    into.push(2);
    into.extend_from_slice(&number.to_be_bytes());
}

/// Appends a column of text as it is stored; nothing where it holds anything else.
fn text_column(row: &AnyRow, name: &str, into: &mut Vec<u8>) -> Option<()> {
    let text: Option<&str> = row.try_get(name).ok()?;
    match text {
        Some(text) => encode_text(text, into),
        None => into.push(0),
    }
    Some(())
}

/// Appends the name and the text of a column that came later, where it holds something.
fn later_column(row: &AnyRow, name: &str, into: &mut Vec<u8>) -> Option<()> {
    let text: Option<&str> = row.try_get(name).ok()?;
    if let Some(text) = text {
        encode_text(name, into);
        encode_text(text, into);
    }
    Some(())
}

/// Appends a column of a number as it is stored; nothing where it holds anything else.
fn number_column(row: &AnyRow, name: &str, into: &mut Vec<u8>) -> Option<()> {
    let number: Option<i64> = row.try_get(name).ok()?;
    match number {
        Some(number) => encode_number(number, into),
        None => into.push(0),
    }
    Some(())
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<String>> for Field {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<i64> for Field {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<i64>> for Field {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

/// Room for the bytes of most rows.
const MESSAGE: usize = 512;
/// Hex digits of a row's code.
const CODE: usize = 64;
/// Hex digits of the hint of a family of columns.
const HINT: usize = 16;

/// Enough of a row's code to know the row by.
pub(crate) type ShortCode = [u8; 16];

/// A table whose rows are authenticated, and the columns that the code is of: those of text first.
///
/// Behind the code a row has a hint for each family of columns, so that an error can say which of them
/// was changed. Hints decide nothing.
pub(crate) struct Authenticated {
    pub(crate) table: &'static str,
    pub(crate) texts: &'static [&'static str],
    pub(crate) numbers: &'static [&'static str],
    pub(crate) families: &'static [&'static [&'static str]],
    /// Columns of text that came later, behind all others: where one holds nothing, the code is that of
    /// a row from before.
    pub(crate) later: &'static [&'static str],
}

impl Authenticated {
    fn message(&self, fields: &[Field]) -> Vec<u8> {
        let mut message = Vec::new();
        encode_text(self.table, &mut message);
        fields.iter().for_each(|field| field.encode(&mut message));
        message
    }

    /// The same of a row as it is stored; nothing where a column holds what it cannot.
    fn message_of(&self, row: &AnyRow) -> Option<Vec<u8>> {
        let mut message = Vec::with_capacity(MESSAGE);
        encode_text(self.table, &mut message);
        self.texts.iter().try_for_each(|name| text_column(row, name, &mut message))?;
        self.numbers.iter().try_for_each(|name| number_column(row, name, &mut message))?;
        self.later.iter().try_for_each(|name| later_column(row, name, &mut message))?;
        Some(message)
    }

    /// The code of a row with these values, in the order of the columns; of a table without families.
    pub(crate) fn mac(&self, store: &Store, fields: &[Field]) -> String {
        debug_assert_eq!(fields.len(), self.texts.len() + self.numbers.len(), "{}", self.table);
        debug_assert!(self.families.is_empty(), "{}", self.table);
        store.0.row_key.mac(&self.message(fields))
    }

    /// The code of a row, and its hints, as they are stored.
    fn stored<'a>(&self, row: &'a AnyRow) -> Option<(&'a str, &'a str)> {
        let mac: Option<&str> = row.try_get(COLUMN).ok()?;
        let mac = mac.filter(|mac| mac.len() == CODE + HINT * self.families.len())?;
        mac.split_at_checked(CODE)
    }

    /// Whether this platform wrote a row as it is stored.
    pub(crate) fn holds(&self, store: &Store, row: &AnyRow) -> bool {
        match (self.message_of(row), self.stored(row)) {
            (Some(message), Some((code, _))) => store.0.row_key.is_mac(&message, code),
            _ => false,
        }
    }

    /// The code of a row as it is stored; nothing where a column holds what it cannot.
    pub(crate) fn mac_of(&self, store: &Store, row: &AnyRow) -> Option<String> {
        let mut mac = store.0.row_key.mac(&self.message_of(row)?);
        for family in self.families {
            mac.push_str(&self.hint(store, row, family)?);
        }
        Some(mac)
    }

    /// What a row is known by, however it is spelled.
    pub(crate) fn short_code(&self, row: &AnyRow) -> Option<ShortCode> {
        let code: tolv_model::slug::Digest = self.stored(row)?.0.parse().ok()?;
        code.0.first_chunk().copied()
    }

    fn hint(&self, store: &Store, row: &AnyRow, family: &[&'static str]) -> Option<String> {
        let mut message = Vec::new();
        for text in ["hint", self.table] {
            encode_text(text, &mut message);
        }
        for name in ["id"].iter().chain(family) {
            if self.later.contains(name) {
                later_column(row, name, &mut message)?;
                continue;
            }
            encode_text(name, &mut message);
            match self.numbers.contains(name) {
                true => number_column(row, name, &mut message)?,
                false => text_column(row, name, &mut message)?,
            }
        }
        let mut hint = store.0.row_key.mac(&message);
        hint.truncate(HINT);
        Some(hint)
    }

    /// Which columns of a row that does not hold were changed, in words.
    pub(crate) fn changed(&self, store: &Store, row: &AnyRow) -> String {
        let hints = self.stored(row).map(|(_, hints)| hints);
        let is_changed = |(place, family): &(usize, &&'static [&'static str])| {
            let stored = hints.and_then(|hints| hints.get(HINT * place..HINT * (place + 1)));
            stored != self.hint(store, row, family).as_deref()
        };
        let families = self.families.iter().enumerate().filter(is_changed);
        let names: Vec<_> = families.map(|(_, family)| family.join(" or ")).collect();
        match names.len() {
            0 => "its code does not match".to_owned(),
            count if count == self.families.len() => "it has no code of this platform's".to_owned(),
            _ => format!("{} does not match its code", names.join(", and ")),
        }
    }
}
