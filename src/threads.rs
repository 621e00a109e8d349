//! Named threads whose death ends the process, and the process's identity.
