//! What operators do.

use std::time::Duration;

use reqwest::{Method, Response};

use super::{RegistryClient, Request};
use crate::{BackupRecord, HostList, RegistryError, RegistryStatus, Restore, Restored};

/// How long a registry may take to write so many records: with etcd, each is a transaction.
const WRITING: Duration = Duration::from_secs(120);

impl RegistryClient {
    /// How the registry is.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn status(&self) -> Result<RegistryStatus, RegistryError> {
        self.json(Request::new(Method::GET, &["v1", "status"])).await
    }

    /// All hosts and registrations.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn hosts(&self) -> Result<HostList, RegistryError> {
        self.json(Request::new(Method::GET, &["v1", "hosts"])).await
    }

    /// Withdraws the registration of a name at an address.
    ///
    /// # Errors
    /// [`crate::Code::UnknownService`] when there is none.
    pub async fn deregister(&self, name: &str, address: &str) -> Result<(), RegistryError> {
        let mut request = Request::new(Method::POST, &["deregister"]);
        request.query.push(("name", name.to_owned()));
        request.query.push(("addr", address.to_owned()));
        self.send(request).await.map(drop)
    }

    /// Begins a backup of all records.
    ///
    /// # Errors
    /// [`crate::Code::Forbidden`] without the scope `admin`.
    pub async fn backup(&self) -> Result<Backup, RegistryError> {
        let mut request = Request::new(Method::GET, &["v1", "backup"]);
        request.wait = None;
        Ok(Backup { response: self.send(request).await?, client: self.clone() })
    }

    /// Restores records of a backup. Those that are there already stay as they are.
    ///
    /// # Errors
    /// [`crate::Code::Forbidden`] without the scope `admin`; [`crate::Code::Invalid`] for a record that
    /// the registry would not take.
    pub async fn restore(&self, records: Vec<BackupRecord>) -> Result<Restored, RegistryError> {
        let mut request = Request::new(Method::POST, &["v1", "restore"]);
        request.wait = Some(WRITING);
        self.json(request.json(&Restore { records })?).await
    }
}

/// A backup that arrives.
#[derive(Debug)]
pub struct Backup {
    response: Response,
    client: RegistryClient,
}

impl Backup {
    /// The next bytes; `None` at the end. Whether it is whole, its last line says. Cancel-safe.
    ///
    /// # Errors
    /// When the registry goes away in the middle.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        let chunk = self.response.chunk().await.map_err(|error| self.client.unreachable(error))?;
        Ok(chunk.map(|chunk| chunk.to_vec()))
    }
}
