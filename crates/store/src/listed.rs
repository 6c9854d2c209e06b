//! Lists of rows: one page has so many rows at most, and so many bytes.
//!
//! Who may write rows may write long ones. How long they are is asked first, and then no more of them
//! are read than a page of a list may have.

use std::ops::{Deref, DerefMut};

use sqlx::any::AnyRow;

use crate::columns::{Columns, limit};
use crate::db::Store;
use crate::error::Error;

/// Bytes of a page's long columns, or one row that has more.
const PAGE_BYTES: i64 = 1 << 20;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Whether there is more behind its last item.
    pub more: bool,
}

impl<T> Deref for Listed<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.items
    }
}

impl<T> DerefMut for Listed<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.items
    }
}

impl<T> IntoIterator for Listed<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

/// A value that a statement asks with.
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(i64),
}

/// A statement whose last value is how many rows are wanted.
pub(crate) struct List<'a> {
    pub(crate) statement: &'a str,
    /// The others.
    pub(crate) values: &'a [Value<'a>],
    /// Columns whose texts may be long.
    pub(crate) long: &'a [&'a str],
}

impl List<'_> {
    /// The first rows, `most` at most, as what `read` makes of them; those that it makes nothing of are
    /// left out.
    pub(crate) async fn page<T>(
        &self,
        store: &Store,
        most: usize,
        read: impl Fn(&AnyRow) -> Result<Option<T>, Error>,
    ) -> Result<Listed<T>, Error> {
        let long = self.long.iter().map(|name| format!("COALESCE(OCTET_LENGTH(t.{name}), 0)"));
        let sum = long.collect::<Vec<_>>().join(" + ");
        let lengths = format!("SELECT CAST({sum} AS BIGINT) AS bytes FROM ({}) t", self.statement);
        let lengths = self.rows(store, &lengths, most.saturating_add(1)).await?;
        let (mut fit, mut bytes) = (0, 0_i64);
        for row in lengths.iter().take(most) {
            bytes = bytes.saturating_add(Columns(row).number("bytes")?);
            if bytes > PAGE_BYTES && fit > 0 {
                break;
            }
            fit += 1;
        }
        let mut items = Vec::new();
        if fit > 0 {
            for row in &self.rows(store, self.statement, fit).await? {
                items.extend(read(row)?);
            }
        }
        Ok(Listed { items, more: lengths.len() > fit })
    }

    async fn rows(
        &self,
        store: &Store,
        statement: &str,
        most: usize,
    ) -> Result<Vec<AnyRow>, Error> {
        let mut query = sqlx::query(statement);
        for value in self.values {
            query = match value {
                Value::Text(text) => query.bind((*text).to_owned()),
                Value::Number(number) => query.bind(*number),
            };
        }
        Ok(query.bind(limit(most)).fetch_all(store.pool()).await?)
    }
}
