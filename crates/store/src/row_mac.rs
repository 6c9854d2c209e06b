//! Rows that are authenticated: a code over every column that decides something, with a key that is
//! not in the database. Whoever can write to the database alone cannot make or change such a row.

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
    /// A column of text as it is stored; nothing where it holds anything else.
    fn text(row: &AnyRow, name: &str) -> Option<Self> {
        use sqlx::Row as _;
        let text: Option<String> = row.try_get(name).ok()?;
        Some(text.map_or(Self::Null, Self::Text))
    }

    /// A column of a number as it is stored; nothing where it holds anything else.
    fn number(row: &AnyRow, name: &str) -> Option<Self> {
        use sqlx::Row as _;
        let number: Option<i64> = row.try_get(name).ok()?;
        Some(number.map_or(Self::Null, Self::Number))
    }

    /// Its bytes, which no other value has: a mark of its kind, the length of a text, and the value.
    fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Null => into.push(0),
            Self::Text(text) => {
                into.push(1);
                into.extend((text.len() as u64).to_be_bytes());
                into.extend(text.as_bytes());
            }
            Self::Number(number) => {
                into.push(2);
                into.extend(number.to_be_bytes());
            }
        }
    }
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

/// A table whose rows are authenticated, and the columns that the code is of: those of text first.
pub(crate) struct Authenticated {
    pub(crate) table: &'static str,
    pub(crate) texts: &'static [&'static str],
    pub(crate) numbers: &'static [&'static str],
}

impl Authenticated {
    fn message(&self, fields: &[Field]) -> Vec<u8> {
        let mut message = Vec::new();
        Field::from(self.table).encode(&mut message);
        fields.iter().for_each(|field| field.encode(&mut message));
        message
    }

    /// The code of a row with these values, in the order of the columns.
    pub(crate) fn mac(&self, store: &Store, fields: &[Field]) -> String {
        debug_assert_eq!(fields.len(), self.texts.len() + self.numbers.len(), "{}", self.table);
        store.0.key.row_mac(&self.message(fields))
    }

    fn fields(&self, row: &AnyRow) -> Option<Vec<Field>> {
        let texts = self.texts.iter().map(|name| Field::text(row, name));
        let numbers = self.numbers.iter().map(|name| Field::number(row, name));
        texts.chain(numbers).collect()
    }

    /// Whether this platform wrote a row as it is stored.
    pub(crate) fn holds(&self, store: &Store, row: &AnyRow) -> bool {
        match (self.fields(row), Field::text(row, COLUMN)) {
            (Some(fields), Some(Field::Text(mac))) => {
                store.0.key.is_row_mac(&self.message(&fields), &mac)
            }
            _ => false,
        }
    }

    /// The code of a row as it is stored; nothing where a column holds what it cannot.
    pub(crate) fn mac_of(&self, store: &Store, row: &AnyRow) -> Option<String> {
        self.fields(row).map(|fields| self.mac(store, &fields))
    }
}
