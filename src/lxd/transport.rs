//! One HTTP exchange over a `UnixStream`: connections kept alive, one absolute deadline a call.
