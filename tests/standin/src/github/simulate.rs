//! A runner in a thread instead of in an instance: the same conversation, no job is really run.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::wire::locked;

/// How far the simulated process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its listener waits for a job.
    Listening,
    /// Its listener acquired a job and has no `Runner.Worker` yet.
    Acquired,
    /// It runs its job: a `Runner.Worker` would be seen.
    Working,
    /// It ended with this code.
    Ended(i32),
    /// It was killed.
    Killed,
}

impl Progress {
    fn lives(self) -> bool {
        !matches!(self, Progress::Ended(_) | Progress::Killed)
    }
}

/// What a runner does otherwise than it should, or later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Its job lasts until [`SimulatedRunner::let_finish`].
    pub hold_job: bool,
    /// The job that it acquired gets no worker process until [`SimulatedRunner::let_work`].
    pub hold_worker: bool,
    /// Its listener does not end: neither after its job nor where its registration is gone.
    pub hang: bool,
}

/// A runner that lives in a thread.
pub struct SimulatedRunner {
    inner: Arc<Inner>,
}

struct Inner {
    server: String,
    token: String,
    orders: Mutex<Orders>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl SimulatedRunner {
    /// Starts a runner from its JIT config. It takes one job, holds it for no time, and ends.
    pub fn start(jit: &str) -> io::Result<SimulatedRunner> {
        SimulatedRunner::start_with(jit, Orders::default())
    }

    /// The same, but the job is held until [`SimulatedRunner::let_finish`].
    pub fn start_and_hold(jit: &str) -> io::Result<SimulatedRunner> {
        SimulatedRunner::start_with(jit, Orders { hold_job: true, ..Orders::default() })
    }

    /// The same, with these orders.
    pub fn start_with(jit: &str, orders: Orders) -> io::Result<SimulatedRunner> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "this is no JIT config");
        let json =
            |text: &str| -> Option<Value> { serde_json::from_slice(&BASE64_STANDARD.decode(text.trim()).ok()?).ok() };
        let files = json(jit).ok_or_else(bad)?;
        let file = |name: &str| json(files.get(name)?.as_str()?);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let server = file(".runner").and_then(|file| text(file.get("ServerUrl"))).ok_or_else(bad)?;
        let token = file(".credentials").and_then(|file| text(file.get("Data")?.get("Token"))).ok_or_else(bad)?;
        let inner = Arc::new(Inner {
            server: server.trim_end_matches('/').to_owned(),
            token,
            orders: Mutex::new(orders),
            progress: Mutex::new(Progress::Listening),
            changed: Condvar::new(),
        });
        let for_thread = Arc::clone(&inner);
        std::thread::Builder::new().name("standin-runner".to_owned()).spawn(move || {
            let code = run(&for_thread).unwrap_or(1);
            // No worker is left of its job.
            for_thread.go(Progress::Listening);
            for_thread.held(|orders| orders.hang);
            for_thread.go(Progress::Ended(code));
        })?;
        Ok(SimulatedRunner { inner })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *locked(&self.inner.progress)
    }

    /// Kills it as a power cut does. The stand-in hears of it at once, which the real one would not.
    pub fn kill(&self) {
        if self.inner.go(Progress::Killed) {
            drop(self.inner.post("lost", ""));
        }
    }

    /// Lets a held job end.
    pub fn let_finish(&self) {
        self.inner.order(|orders| orders.hold_job = false);
    }

    /// Lets the worker of an acquired job begin.
    pub fn let_work(&self) {
        self.inner.order(|orders| orders.hold_worker = false);
    }

    /// Waits until it ended or was killed.
    pub fn wait(&self, timeout: Duration) -> Option<Progress> {
        let lives = |progress: &mut Progress| progress.lives();
        let waited = self.inner.changed.wait_timeout_while(locked(&self.inner.progress), timeout, lives);
        let (progress, waited) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        (!waited.timed_out()).then_some(*progress)
    }
}

impl Inner {
    /// Goes on to `next`, unless it is over already.
    fn go(&self, next: Progress) -> bool {
        let mut progress = locked(&self.progress);
        let lives = progress.lives();
        if lives {
            *progress = next;
            self.changed.notify_all();
        }
        lives
    }

    fn dead(&self) -> bool {
        *locked(&self.progress) == Progress::Killed
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        // The lock that those wait with who look at the orders.
        let _guard = locked(&self.progress);
        change(&mut locked(&self.orders));
        self.changed.notify_all();
    }

    /// Waits while the orders say so and nobody kills it.
    fn held(&self, by: impl Fn(&Orders) -> bool) {
        let held = |progress: &mut Progress| progress.lives() && by(&locked(&self.orders));
        drop(self.changed.wait_while(locked(&self.progress), held));
    }

    fn agent() -> ureq::Agent {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        config.timeout_global(Some(Duration::from_secs(40))).build().new_agent()
    }

    fn post(&self, what: &str, body: &str) -> Result<(u16, String), ureq::Error> {
        let request = Inner::agent().post(format!("{}/_runner/{what}", self.server));
        let mut answer = request.header("Authorization", format!("Bearer {}", self.token)).send(body)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }

    fn get(&self, what: &str) -> Result<(u16, String), ureq::Error> {
        let request = Inner::agent().get(format!("{}/_runner/{what}", self.server));
        let mut answer = request.header("Authorization", format!("Bearer {}", self.token)).call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }
}

/// The listener's life, to its exit code.
fn run(inner: &Inner) -> Result<i32, ureq::Error> {
    if inner.post("sessions", "")?.0 != 200 {
        return Ok(1);
    }
    loop {
        let (status, text) = inner.get("message")?;
        if inner.dead() {
            return Ok(1);
        }
        match (status, text.trim_end()) {
            (202, _) => continue,
            (200, job) if !job.is_empty() => {
                inner.post(&format!("acknowledge?job={job}"), "")?;
                if inner.post(&format!("acquire?job={job}"), "")?.0 != 200 || !inner.go(Progress::Acquired) {
                    continue;
                }
                inner.held(|orders| orders.hold_worker);
                if !inner.go(Progress::Working) || inner.post(&format!("begin?job={job}"), "")?.0 != 200 {
                    return Ok(1);
                }
                inner.held(|orders| orders.hold_job);
                if inner.dead() {
                    return Ok(1);
                }
                inner.post(&format!("log?job={job}"), "simulated\n")?;
                inner.post(&format!("finish?job={job}&code=0"), "")?;
                return Ok(0);
            }
            _ => return Ok(1),
        }
    }
}
