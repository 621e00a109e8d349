//! Webhooks as GitHub sends them: signed, each with a delivery id, ten seconds of patience, never again by themselves.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::random_word;
use super::wire::locked;
use lxdrunner::model::{JobId, Timestamp};

/// "GitHub waits ten seconds", its documentation says.
const PATIENCE: Duration = Duration::from_secs(10);
/// Hooks that wait to be sent; what comes beyond is lost, as hooks may be.
const WAITING: usize = 4096;
/// Hooks on their way at once.
const SENDERS: usize = 4;

/// One hook that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// X-GitHub-Delivery.
    pub guid: String,
    /// X-GitHub-Event.
    pub event: String,
    pub action: String,
    pub job: Option<JobId>,
    pub at: Timestamp,
    /// `None`: no answer.
    pub status: Option<u16>,
    /// Why there was none.
    pub failure: Option<String>,
    /// The hook that it is of; `None`: the one that was set by hand.
    pub hook: Option<u64>,
    /// It was asked for again.
    pub redelivery: bool,
    pub payload: String,
}

/// What is to be sent.
#[derive(Clone, Debug, Default)]
pub struct Order {
    pub event: String,
    pub action: String,
    pub job: Option<JobId>,
    pub payload: String,
    pub to: Target,
    /// A delivery that is made again keeps its id.
    pub guid: Option<String>,
}

/// Where it goes.
#[derive(Clone, Debug, Default)]
pub struct Target {
    pub hook: Option<u64>,
    pub url: String,
    pub secret: String,
    pub muted: bool,
}

type Callback = Box<dyn Fn(&Delivery) + Send + Sync>;

#[derive(Default)]
struct Inner {
    target: Mutex<Option<Target>>,
    sent: Mutex<Vec<Delivery>>,
    callback: OnceLock<Callback>,
}

/// The sending side: its threads end when it and every [`Outbox`] are dropped.
pub struct Hooks {
    inner: Arc<Inner>,
    queue: Sender<Order>,
}

/// Where what happens is handed in.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
    queue: Sender<Order>,
}

impl Outbox {
    /// Sends by and by; a full queue loses hooks, as GitHub may.
    pub fn send(&self, order: Order) {
        drop(self.queue.try_send(order));
    }

    /// Sends a `workflow_job` hook by and by to the one that was set by hand, where there is one.
    pub fn post(&self, job: JobId, action: &str, payload: &Value) {
        let target = locked(&self.inner.target).clone().filter(|target| !target.muted);
        if let Some(to) = target {
            self.send(Order::of_job(job, action, payload, to));
        }
    }
}

impl Order {
    /// About a job.
    pub fn of_job(job: JobId, action: &str, payload: &Value, to: Target) -> Order {
        Order {
            event: "workflow_job".to_owned(),
            action: action.to_owned(),
            job: Some(job),
            payload: payload.to_string(),
            to,
            guid: None,
        }
    }
}

impl Hooks {
    pub fn start() -> io::Result<Hooks> {
        let (queue, orders) = crossbeam_channel::bounded(WAITING);
        let inner = Arc::new(Inner::default());
        for _ in 0..SENDERS {
            let (inner, orders): (Arc<Inner>, Receiver<Order>) = (Arc::clone(&inner), orders.clone());
            std::thread::Builder::new().name("standin-hooks".to_owned()).spawn(move || {
                for order in orders {
                    send(&inner, order);
                }
            })?;
        }
        Ok(Hooks { inner, queue })
    }

    pub fn outbox(&self) -> Outbox {
        Outbox { inner: Arc::clone(&self.inner), queue: self.queue.clone() }
    }

    pub fn when_answered(&self, callback: impl Fn(&Delivery) + Send + Sync + 'static) {
        // Only the first one counts, and there is only one.
        drop(self.inner.callback.set(Box::new(callback)));
    }

    pub fn set(&self, url: &str, secret: &str) {
        *locked(&self.inner.target) =
            Some(Target { hook: None, url: url.to_owned(), secret: secret.to_owned(), muted: false });
    }

    pub fn by_itself(&self, by_itself: bool) {
        if let Some(target) = locked(&self.inner.target).as_mut() {
            target.muted = !by_itself;
        }
    }

    pub fn deliver(&self, event: &str, job: Option<JobId>, action: &str, payload: &Value) -> Delivery {
        let to = locked(&self.inner.target).clone().unwrap_or_default();
        let (event, action, payload) = (event.to_owned(), action.to_owned(), payload.to_string());
        send(&self.inner, Order { event, action, job, payload, to, guid: None })
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        locked(&self.inner.sent).clone()
    }
}

fn send(inner: &Inner, order: Order) -> Delivery {
    let Order { event, action, job, payload, to: target, guid } = order;
    let redelivery = guid.is_some();
    let guid = guid.unwrap_or_else(fresh_guid);
    let at = Timestamp::now();
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent();
    let request = agent
        .post(&target.url)
        .header("User-Agent", "GitHub-Hookshot/standin")
        .header("Accept", "*/*")
        .header("Content-Type", "application/json")
        .header("X-GitHub-Delivery", &guid)
        .header("X-GitHub-Event", &event)
        .header("X-GitHub-Hook-ID", target.hook.unwrap_or(1).to_string())
        .header("X-GitHub-Hook-Installation-Target-ID", "33435655")
        .header("X-GitHub-Hook-Installation-Target-Type", "organization")
        .header("X-Hub-Signature", old_signature(&target.secret, &payload))
        .header("X-Hub-Signature-256", signature(&target.secret, &payload));
    let (status, failure) = match request.send(&payload) {
        Ok(response) => (Some(response.status().as_u16()), None),
        Err(error) => {
            log::debug!("hook_unanswered event={event} action={action} error={error}");
            let timed_out = matches!(error, ureq::Error::Timeout(_));
            (None, Some(if timed_out { "timed out" } else { "failed to connect to host" }.to_owned()))
        }
    };
    let hook = target.hook;
    let delivery = Delivery { guid, event, action, job, at, status, failure, hook, redelivery, payload };
    locked(&inner.sent).push(delivery.clone());
    if let Some(callback) = inner.callback.get() {
        callback(&delivery);
    }
    delivery
}

/// The value of X-Hub-Signature-256.
pub fn signature(secret: &str, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(body.as_bytes());
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

/// The value of the old X-Hub-Signature.
fn old_signature(secret: &str, body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    format!("sha1={}", hex(ring::hmac::sign(&key, body.as_bytes()).as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fresh_guid() -> String {
    let digits = random_word() + &random_word();
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_githubs() {
        // The example of "Validating webhook deliveries" in GitHub's documentation.
        let signed = signature("It's a Secret to Everybody", "Hello, World!");
        assert_eq!(signed, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
        // RFC 2202, test case 2.
        let old = old_signature("Jefe", "what do ya want for nothing?");
        assert_eq!(old, "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    }
}
