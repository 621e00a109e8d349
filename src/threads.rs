//! Named threads. A panic in any of them ends the process with exit code 1: the daemon is crash-only, systemd starts it
//! again, and start-up reads everything anew.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};

/// Bytes of stack of each thread; the kernel provides memory as it is used.
const STACK: usize = 256 * 1024;

/// Starts a thread that the process needs: where the system has no more threads, the process ends.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = try_spawn(name, work) {
        die(&format!("cannot start thread {name}: {error}"));
    }
}

/// Starts a thread that the process can do without.
///
/// # Errors
/// The system has no more threads.
pub fn try_spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work)
}

/// A task on a scoped thread.
pub struct Handle<'scope, T> {
    thread: Option<thread::ScopedJoinHandle<'scope, T>>,
    work: Arc<dyn Fn() -> T + Send + Sync + 'scope>,
}

/// Starts a task on a scoped thread. Where the system has no more threads, [`Handle::join`] runs it.
pub fn spawn_scoped<'scope, 'env, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, 'env>,
    name: &str,
    work: impl Fn() -> T + Send + Sync + 'scope,
) -> Handle<'scope, T> {
    let work = Arc::new(work);
    let theirs = Arc::clone(&work);
    let thread = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn_scoped(scope, move || theirs());
    Handle { thread: thread.ok(), work }
}

impl<T> Handle<'_, T> {
    /// Waits for its result.
    pub fn join(self) -> T {
        match self.thread.map(thread::ScopedJoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => (self.work)(),
        }
    }
}

/// Locks the mutex, also after a panic of another thread, which ends the process anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs two tasks at the same time, `theirs` on a thread of its own.
pub fn join<O, T: Send>(name: &str, theirs: impl Fn() -> T + Sync, ours: impl FnOnce() -> O) -> (O, T) {
    thread::scope(|scope| {
        let handle = spawn_scoped(scope, name, &theirs);
        (ours(), handle.join())
    })
}

/// Makes a panic on any thread, also of a library, end the process with exit code 1; it is logged.
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

/// Ends the process with exit code 1: it cannot go on.
pub fn die(why: &str) -> ! {
    let thread = thread::current();
    log::error!("process_ends thread={} {why}", thread.name().unwrap_or("unnamed"));
    std::process::exit(1)
}
