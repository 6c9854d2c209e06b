//! What an operation says, to whoever follows it, what is kept of it, and its early end.

use jiff::Timestamp;
use tolv_model::id::OperationId;
use tolv_model::operation::State;
use tolv_store::Operation;

use super::error::Error;
use super::output::Follow;
use super::platform::{Platform, blocking, output_key};

impl Platform {
    /// The output of an operation, from its beginning, to its end.
    ///
    /// # Errors
    ///
    /// There is no such operation.
    pub async fn follow(&self, id: &OperationId) -> Result<Follow, Error> {
        if let Some(follow) = self.0.outputs.follow(id) {
            return Ok(follow);
        }
        let operation = self.0.store.operation(id).await?;
        if operation.state.is_over() {
            return Ok(self.stored_output(&operation).await);
        }
        let follow = self.0.outputs.begin(id).follow();
        // It may have ended between the look and the beginning.
        let operation = self.0.store.operation(id).await?;
        if operation.state.is_over() {
            self.0.outputs.over(id, operation.state);
            return Ok(self.stored_output(&operation).await);
        }
        Ok(follow)
    }

    /// Gives up an operation that is not over. One that is queued is over at once; one that runs
    /// undoes what it has begun.
    ///
    /// # Errors
    ///
    /// [`Error::Over`].
    pub async fn cancel(&self, id: &OperationId) -> Result<Operation, Error> {
        let store = &self.0.store;
        if let Some(push) = self.cancel_push(id).await {
            return Ok(push);
        }
        let operation = store.operation(id).await?;
        if operation.state.is_over() {
            return Err(Error::Over(id.clone()));
        }
        let controller = self.controllers().get(&operation.deploy).cloned();
        if controller.is_some_and(|controller| controller.cancel(id)) {
            let mut follow = self.follow(id).await?;
            while follow.next().await.is_some() {}
        } else if store.end(id, State::Cancelled, None, Timestamp::now()).await? {
            self.0.outputs.over(id, State::Cancelled);
        }
        Ok(store.operation(id).await?)
    }

    /// What is kept of an operation that is over.
    pub(super) async fn stored_output(&self, operation: &Operation) -> Follow {
        let log = self.output_of(&output_key(&operation.id)).await;
        Follow::stored(&log, operation.state)
    }

    /// An output that was kept; nothing where none was.
    pub(super) async fn kept_output(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(sealed) = self.0.blobs.get(key).await? else { return Ok(None) };
        let (store, owner) = (self.0.store.clone(), key.to_owned());
        blocking(move || store.unseal_stream(&owner, &sealed)).await.map(Some)
    }

    /// As [`Platform::kept_output`], for people: what is over without an output still has its end,
    /// and one that cannot be read says why.
    pub(super) async fn output_of(&self, key: &str) -> Vec<u8> {
        match self.kept_output(key).await {
            Ok(output) => output.unwrap_or_default(),
            Err(error) => {
                format!(" !     The output cannot be read: {}\n", error.chain()).into_bytes()
            }
        }
    }
}
