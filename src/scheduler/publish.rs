//! The scheduler's own service, which `kubectl get services` lists, and its endpoints.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Result};
use crate::object::{Object, resource};
use crate::supervise::Shutdown;
use crate::util::product::Product;

const INTERVAL: Duration = Duration::from_secs(10);
const NAMESPACE: &str = "default";
/// The port of the service, whatever port the scheduler itself listens on.
const SERVICE_PORT: u16 = 10251;

/// Publishes the service.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    pub(super) client: Client,
    pub(super) product: &'static Product,
    /// The cluster IP to request; `None`: any.
    pub(super) cluster_ip: Option<IpAddr>,
    /// The address of this scheduler.
    pub(super) endpoint: SocketAddr,
}

impl Publisher {
    /// Checks service and endpoints periodically, and creates them if missing.
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let publishing = async {
            let mut said = String::new();
            loop {
                let problem = match self.publish().await {
                    Ok(()) => String::new(),
                    Err(error) => error.to_string(),
                };
                if !problem.is_empty() && problem != said {
                    tracing::warn!("service {}: {problem}", self.product.scheduler_service);
                }
                said = problem;
                tokio::time::sleep(INTERVAL).await;
            }
        };
        shutdown.run_until_cancelled(publishing).await;
        Ok(())
    }

    async fn publish(&self) -> Result<()> {
        let name = self.product.scheduler_service;
        if absent(self.client.get(&resource::SERVICE, NAMESPACE, name).await)?.is_none() {
            exists_is_fine(self.client.create(&resource::SERVICE, NAMESPACE, &self.service()).await)?;
        }
        // The API rejects endpoints on the loopback interface.
        if self.endpoint.ip().is_loopback() {
            return Ok(());
        }
        let wanted = self.endpoints();
        match absent(self.client.get(&resource::ENDPOINTS, NAMESPACE, name).await)? {
            None => exists_is_fine(self.client.create(&resource::ENDPOINTS, NAMESPACE, &wanted).await),
            Some(there) if same_subsets(&there, &wanted) => Ok(()),
            Some(_) => self.client.update(&resource::ENDPOINTS, NAMESPACE, name, &wanted).await.map(drop),
        }
    }

    fn metadata(&self) -> Value {
        let labels = json!({"provider": self.product.scheduler_provider, "component": "scheduler"});
        json!({"name": self.product.scheduler_service, "namespace": NAMESPACE, "labels": labels})
    }

    fn service(&self) -> Value {
        let mut spec = json!({"ports": [{"port": SERVICE_PORT, "protocol": "TCP"}], "sessionAffinity": "None"});
        if let Some(address) = self.cluster_ip {
            spec["clusterIP"] = address.to_string().into();
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": self.metadata(), "spec": spec})
    }

    fn endpoints(&self) -> Value {
        let port = json!({"port": self.endpoint.port(), "protocol": "TCP"});
        let subset = json!({"addresses": [{"ip": self.endpoint.ip()}], "ports": [port]});
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": self.metadata(), "subsets": [subset]})
    }
}

fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is("NotFound") => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists_is_fine<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if !error.is("AlreadyExists") => Err(error),
        _ => Ok(()),
    }
}

fn same_subsets(there: &Object, wanted: &Value) -> bool {
    serde_json::from_slice::<Value>(there.body()).is_ok_and(|it| it["subsets"] == wanted["subsets"])
}
