//! Slugs, as far as the database knows them.

use sqlx::any::AnyRow;
use tolv_model::id::AppId;
use tolv_model::slug::SlugId;

use crate::columns::Columns;
use crate::db::Store;
use crate::error::Error;
use crate::types::Slug;

fn slug(row: &AnyRow) -> Result<Slug, Error> {
    let row = Columns(row);
    Ok(Slug {
        id: SlugId(row.parsed("id")?),
        app: row.parsed("app")?,
        commit: row.maybe_text("commit_id")?,
        built: row.time("built")?,
        bytes: u64::try_from(row.number("bytes")?).unwrap_or(0),
    })
}

impl Store {
    /// A slug of an app.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn slug(&self, app: &AppId, id: &SlugId) -> Result<Slug, Error> {
        let row = sqlx::query("SELECT * FROM slugs WHERE app = $1 AND id = $2")
            .bind(app.as_str().to_owned())
            .bind(id.0.to_string())
            .fetch_optional(self.pool())
            .await?;
        slug(&row.ok_or_else(|| Error::NotFound { what: "slug", name: id.to_string() })?)
    }

    /// Every slug that is known.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn slugs(&self) -> Result<Vec<Slug>, Error> {
        let rows = sqlx::query("SELECT * FROM slugs").fetch_all(self.pool()).await?;
        rows.iter().map(slug).collect()
    }

    /// Forgets a slug.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn remove_slug(&self, app: &AppId, id: &SlugId) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query("DELETE FROM slugs WHERE app = $1 AND id = $2")
            .bind(app.as_str().to_owned())
            .bind(id.0.to_string())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }
}
