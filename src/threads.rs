//! Named threads whose death ends the process, and the process's identity.
//!
//! The daemon is crash-only: a thread that panics has left something undone that nobody would notice, so the whole
//! process ends with exit code 1 and is started again, and start-up finds out what is to be done.

use std::io;
use std::sync::Once;
use std::thread::{self, JoinHandle};

/// Bytes of stack that a thread of ours has; memory is taken as it is used.
const STACK: usize = 256 * 1024;

/// Starts a thread that the process cannot do without: where the system has none to give, the process ends. The thread
/// may return; a panic in it ends the process where [`exit_on_panic`] was called.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = try_spawn(name, work) {
        die(&format!("cannot start thread {name}: {error}"));
    }
}

/// Starts a thread that can be done without.
///
/// # Errors
/// The system has no more threads to give.
pub fn try_spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work)
}

/// What was begun beside; see [`begin`].
pub struct Begun<'scope, T> {
    thread: Option<thread::ScopedJoinHandle<'scope, T>>,
    work: &'scope (dyn Fn() -> T + Sync),
}

/// Begins something on a thread of its own. Where the system has no thread to give, it is done when its end is waited for.
pub fn begin<'scope, 'env, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, 'env>,
    name: &str,
    work: &'scope (dyn Fn() -> T + Sync),
) -> Begun<'scope, T> {
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn_scoped(scope, work);
    Begun { thread: thread.ok(), work }
}

impl<T> Begun<'_, T> {
    /// Waits for what comes of it.
    pub fn end(self) -> T {
        match self.thread.map(thread::ScopedJoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => (self.work)(),
        }
    }
}

/// Does two things at the same time, `theirs` on a thread of its own that ends with it.
pub fn beside<O, T: Send>(name: &str, theirs: impl Fn() -> T + Sync, ours: impl FnOnce() -> O) -> (O, T) {
    thread::scope(|scope| {
        let begun = begin(scope, name, &theirs);
        (ours(), begun.end())
    })
}

/// From here on a panic on any thread, of ours or of a library, is logged and ends the process with exit code 1.
pub fn exit_on_panic() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let thread = thread::current();
            let name = thread.name().unwrap_or("unnamed");
            log::error!("thread_died thread={name} {panic}");
            std::process::exit(1);
        }));
    });
}

/// Ends the process with exit code 1: something that everything depends on is gone.
pub fn die(why: &str) -> ! {
    let thread = thread::current();
    log::error!("process_ends thread={} {why}", thread.name().unwrap_or("unnamed"));
    std::process::exit(1)
}
