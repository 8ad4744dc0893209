//! The nine calls, each a translation to one method of [`VolumeService`].

use std::sync::Arc;

use tokio::time::timeout;
use volume::{Caller, Driver, Frontend, RefId, Target, VolumeService};

use crate::engine;
use crate::reply::{Answer, Capabilities, Refusal, Volume};
use crate::request::{Body, Call};

/// Who answers: a driver of the service.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) service: Arc<dyn VolumeService>,
    pub(crate) driver: Driver,
}

impl Calls {
    /// Answers one call.
    pub(crate) async fn answer(&self, call: Call, frontend: Frontend, body: Body) -> Result<Answer, Refusal> {
        match call {
            Call::Activate => Ok(Answer { implements: Some(["VolumeDriver"]), ..Answer::default() }),
            Call::Capabilities => {
                Ok(Answer { capabilities: Some(Capabilities { scope: "local" }), ..Answer::default() })
            }
            Call::Create => self.create(frontend, body).await,
            Call::Get => self.get(body).await,
            Call::List => self.list().await,
            Call::Mount => self.mount(frontend, body).await,
            Call::Path => self.path(body).await,
            Call::Unmount => self.unmount(frontend, body).await,
            Call::Remove => self.remove(body).await,
        }
    }

    async fn create(&self, frontend: Frontend, body: Body) -> Result<Answer, Refusal> {
        let name = body.name()?;
        self.service.define(self.driver, &name, &body.options(), &Caller::admin(frontend)).await?;
        Ok(Answer::default())
    }

    async fn get(&self, body: Body) -> Result<Answer, Refusal> {
        let info = self.service.get(self.driver, &body.name()?).await?;
        Ok(Answer { volume: Some(Volume::from(&info)), ..Answer::default() })
    }

    async fn list(&self) -> Result<Answer, Refusal> {
        let volumes = self.service.list(self.driver).await?;
        Ok(Answer { volumes: Some(volumes.iter().map(Volume::from).collect()), ..Answer::default() })
    }

    async fn mount(&self, frontend: Frontend, body: Body) -> Result<Answer, Refusal> {
        let name = body.name()?;
        let reference = reference(frontend, &body)?;
        let limit = engine::mount_limit(frontend);
        let acquire = self.service.acquire_named(self.driver, &name, &reference, &Target::Shared);
        let acquired = timeout(limit, acquire).await.map_err(|_| {
            Refusal::new(format!(
                "mount {name}: not ready after {:.1} s, which is as long as the engine waits; \
                 `volplane status` tells why, and a retry finds more of it in the cache",
                limit.as_secs_f32()
            ))
        })??;
        // An engine resolves an empty or relative path against its own bundle directory and hands that to the container.
        let path = acquired.path.to_str().filter(|_| acquired.path.is_absolute());
        let path = path.ok_or_else(|| {
            Refusal::new(format!("mount {name}: {:?} is no absolute UTF-8 path", acquired.path))
        })?;
        Ok(Answer { mountpoint: Some(path.to_owned()), ..Answer::default() })
    }

    async fn path(&self, body: Body) -> Result<Answer, Refusal> {
        let info = self.service.get(self.driver, &body.name()?).await?;
        let path = info.mountpoint.as_ref().and_then(|path| path.to_str()).unwrap_or_default();
        Ok(Answer { mountpoint: Some(path.to_owned()), ..Answer::default() })
    }

    /// Unmount of what nobody mounted succeeds: engines send it after failed mounts and twice.
    async fn unmount(&self, frontend: Frontend, body: Body) -> Result<Answer, Refusal> {
        self.service.release(&reference(frontend, &body)?).await?;
        Ok(Answer::default())
    }

    async fn remove(&self, body: Body) -> Result<Answer, Refusal> {
        self.service.remove(self.driver, &body.name()?).await?;
        Ok(Answer::default())
    }
}

/// The engine's id is unique only together with the volume (Podman sends one constant for all).
fn reference(frontend: Frontend, body: &Body) -> Result<RefId, Refusal> {
    Ok(RefId { frontend, scope: body.name()?.to_string(), id: body.id.clone() })
}
