//! LXD or Incus: one API, but each has a client program and public image servers of its own.

use std::fmt;
use std::path::Path;

/// The product that answers on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Canonical's.
    Lxd,
    /// The fork of it by the Linux Containers project.
    Incus,
}

impl Product {
    /// From `environment.server` of `GET /1.0`; an unknown product is treated as LXD.
    pub fn named(name: &str) -> Product {
        if name.eq_ignore_ascii_case("incus") { Product::Incus } else { Product::Lxd }
    }

    /// From the socket's path, before anything has answered on it.
    pub fn of_socket(socket: &Path) -> Product {
        if socket.to_string_lossy().contains("incus") { Product::Incus } else { Product::Lxd }
    }

    /// The command line client, for hints.
    pub fn client(self) -> &'static str {
        match self {
            Product::Lxd => "lxc",
            Product::Incus => "incus",
        }
    }

    /// The agent inside a virtual machine: the name of its unit, its program and its Debian package.
    pub fn agent(self) -> &'static str {
        match self {
            Product::Lxd => "lxd-agent",
            Product::Incus => "incus-agent",
        }
    }

    /// The group whose members may do everything on the socket.
    pub fn group(self) -> &'static str {
        match self {
            Product::Lxd => "lxd",
            Product::Incus => "incus-admin",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Product::Lxd => "LXD",
            Product::Incus => "Incus",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_known_by_its_name_or_guessed_by_its_socket() {
        assert_eq!(["lxd", "incus", "Incus", ""].map(Product::named), {
            [Product::Lxd, Product::Incus, Product::Incus, Product::Lxd]
        });
        let guessed = |path: &str| Product::of_socket(Path::new(path));
        assert_eq!(guessed("/var/lib/incus/unix.socket"), Product::Incus);
        assert_eq!(guessed("/var/snap/lxd/common/lxd/unix.socket"), Product::Lxd);
    }
}
