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
}

impl Authenticated {
    fn message(&self, fields: &[Field]) -> Vec<u8> {
        let mut message = Vec::new();
        Field::from(self.table).encode(&mut message);
        fields.iter().for_each(|field| field.encode(&mut message));
        message
    }

    /// The code of a row with these values, in the order of the columns; of a table without families.
    pub(crate) fn mac(&self, store: &Store, fields: &[Field]) -> String {
        debug_assert_eq!(fields.len(), self.texts.len() + self.numbers.len(), "{}", self.table);
        debug_assert!(self.families.is_empty(), "{}", self.table);
        store.0.row_key.mac(&self.message(fields))
    }

    fn fields(&self, row: &AnyRow) -> Option<Vec<Field>> {
        let texts = self.texts.iter().map(|name| Field::text(row, name));
        let numbers = self.numbers.iter().map(|name| Field::number(row, name));
        texts.chain(numbers).collect()
    }

    /// The code of a row, and its hints, as they are stored.
    fn stored(&self, row: &AnyRow) -> Option<(String, String)> {
        let Some(Field::Text(mut code)) = Field::text(row, COLUMN) else { return None };
        if code.len() != CODE + HINT * self.families.len() || !code.is_char_boundary(CODE) {
            return None;
        }
        let hints = code.split_off(CODE);
        Some((code, hints))
    }

    /// Whether this platform wrote a row as it is stored.
    pub(crate) fn holds(&self, store: &Store, row: &AnyRow) -> bool {
        match (self.fields(row), self.stored(row)) {
            (Some(fields), Some((code, _))) => {
                store.0.row_key.is_mac(&self.message(&fields), &code)
            }
            _ => false,
        }
    }

    /// The code of a row as it is stored; nothing where a column holds what it cannot.
    pub(crate) fn mac_of(&self, store: &Store, row: &AnyRow) -> Option<String> {
        let mut mac = store.0.row_key.mac(&self.message(&self.fields(row)?));
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
        let field = |name: &&'static str| match self.numbers.contains(name) {
            true => Field::number(row, name),
            false => Field::text(row, name),
        };
        let mut message = Vec::new();
        for text in ["hint", self.table] {
            Field::from(text).encode(&mut message);
        }
        for name in ["id"].iter().chain(family) {
            Field::from(*name).encode(&mut message);
            field(name)?.encode(&mut message);
        }
        let mut hint = store.0.row_key.mac(&message);
        hint.truncate(HINT);
        Some(hint)
    }

    /// Which columns of a row that does not hold were changed, in words.
    pub(crate) fn changed(&self, store: &Store, row: &AnyRow) -> String {
        let hints = self.stored(row).map(|(_, hints)| hints);
        let is_changed = |(place, family): &(usize, &&'static [&'static str])| {
            let stored =
                hints.as_ref().and_then(|hints| hints.get(HINT * place..HINT * (place + 1)));
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
