//! Rows of the database as the model's types, and the other way round.

use std::str::FromStr;

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::error::Error;

/// A moment as it is stored.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Columns of a row as the model's types.
pub(crate) struct Columns<'a>(pub(crate) &'a AnyRow);

impl Columns<'_> {
    pub(crate) fn text(&self, name: &'static str) -> Result<String, Error> {
        Ok(self.0.try_get(name)?)
    }

    pub(crate) fn maybe_text(&self, name: &'static str) -> Result<Option<String>, Error> {
        Ok(self.0.try_get(name)?)
    }

    pub(crate) fn number(&self, name: &'static str) -> Result<i64, Error> {
        Ok(self.0.try_get(name)?)
    }

    pub(crate) fn maybe_number(&self, name: &'static str) -> Result<Option<i64>, Error> {
        Ok(self.0.try_get(name)?)
    }

    pub(crate) fn u32(&self, name: &'static str) -> Result<u32, Error> {
        let number = self.number(name)?;
        u32::try_from(number).map_err(|_| Error::corrupt(name)(number.to_string()))
    }

    pub(crate) fn time(&self, name: &'static str) -> Result<Timestamp, Error> {
        moment(name, self.number(name)?)
    }

    pub(crate) fn maybe_time(&self, name: &'static str) -> Result<Option<Timestamp>, Error> {
        self.maybe_number(name)?.map(|micros| moment(name, micros)).transpose()
    }

    pub(crate) fn parsed<T: FromStr<Err: ToString>>(&self, name: &'static str) -> Result<T, Error> {
        self.text(name)?.parse().map_err(|error: T::Err| Error::corrupt(name)(error.to_string()))
    }

    pub(crate) fn maybe_parsed<T: FromStr<Err: ToString>>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, Error> {
        let parse = |text: String| {
            text.parse().map_err(|error: T::Err| Error::corrupt(name)(error.to_string()))
        };
        self.maybe_text(name)?.map(parse).transpose()
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        name: &'static str,
    ) -> Result<T, Error> {
        serde_json::from_str(&self.text(name)?)
            .map_err(|error| Error::corrupt(name)(error.to_string()))
    }
}

fn moment(name: &'static str, micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|error| Error::corrupt(name)(error.to_string()))
}

/// A value as JSON for a column.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::corrupt("a value")(error.to_string()))
}

/// `limit` as a database takes it.
pub(crate) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
