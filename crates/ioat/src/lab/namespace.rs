//! Namespaces of this process alone.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    panic, thread,
};

use rustix::{
    io::Errno,
    process::{getgid, getuid},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// This user may not make user namespaces.
    #[error(
        "this system forbids user namespaces to this user: run as root, or allow them \
         (sysctl -w kernel.unprivileged_userns_clone=1; in a container: --security-opt \
         seccomp=unconfined)"
    )]
    Forbidden,
    /// `AppArmor` lets this program make a user namespace, and withholds all rights in it.
    #[error(
        "AppArmor keeps this program from using its user namespace: run as root, or allow it \
         (sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)"
    )]
    AppArmor,
    /// The limit on namespaces is reached, or zero.
    #[error(
        "no more namespaces are allowed: raise the limits (sysctl -w \
         user.max_user_namespaces=10000 user.max_net_namespaces=10000)"
    )]
    Limit,
    /// The kernel was built without user or network namespaces.
    #[error("this kernel has no {0}: it needs CONFIG_USER_NS and CONFIG_NET_NS")]
    Unsupported(&'static str),
    /// Other threads are running, and could not follow.
    #[error("a user namespace can only be entered before threads are started")]
    Threads,
    /// The identity map of the user namespace could not be written.
    #[error("writing {path} failed: {source}")]
    IdentityMap {
        /// The file.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system refused for another reason.
    #[error("making a namespace failed: {0}")]
    Os(#[source] io::Error),
}

/// The namespace that the process has entered. There is no way back.
#[derive(Debug)]
pub struct Namespace {
    user: bool,
}

impl Namespace {
    /// Moves the process into a new user and network namespace, in which it is root: it can make
    /// links, and nobody outside sees them. Nothing but the loopback link is there at first.
    ///
    /// Root, where user namespaces are forbidden, enters a network namespace alone.
    ///
    /// Call it at the start of the program, before any thread is started.
    ///
    /// # Errors
    ///
    /// See [`NamespaceError`].
    pub fn enter() -> Result<Self, NamespaceError> {
        // Inside the new namespace these two are the overflow ids until the map is written.
        let (uid, gid) = (getuid(), getgid());
        match unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) {
            Ok(()) => {}
            Err(refused) => {
                // Not EPERM alone: a limit of zero user namespaces does not concern root either.
                return match unshare(UnshareFlags::NEWNET) {
                    Ok(()) => Ok(Self { user: false }),
                    Err(_) => Err(explain(refused)),
                };
            }
        }
        // user_namespaces(7): without privileges outside, groups must be given up first, and the
        // map has one entry.
        write_map("/proc/self/setgroups", "deny")?;
        write_map("/proc/self/uid_map", &format!("0 {} 1", uid.as_raw()))?;
        write_map("/proc/self/gid_map", &format!("0 {} 1", gid.as_raw()))?;
        Ok(Self { user: true })
    }

    /// Whether it has a user namespace too.
    #[must_use]
    pub const fn has_user_namespace(&self) -> bool {
        self.user
    }
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the flags leave the table of file descriptors shared.
    unsafe { unshare_unsafe(flags) }
}

fn write_map(path: &'static str, map: &str) -> Result<(), NamespaceError> {
    fs::write(path, map).map_err(|source| {
        if source.kind() == io::ErrorKind::PermissionDenied && apparmor_restricts() {
            NamespaceError::AppArmor
        } else {
            NamespaceError::IdentityMap { path, source }
        }
    })
}

fn apparmor_restricts() -> bool {
    fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        .is_ok_and(|value| value.trim() == "1")
}

/// What the errors of unshare(2) mean.
fn explain(errno: Errno) -> NamespaceError {
    let lacks = |path: &str| !fs::exists(path).unwrap_or(true);
    match errno {
        Errno::PERM | Errno::ACCESS if apparmor_restricts() => NamespaceError::AppArmor,
        Errno::PERM | Errno::ACCESS => NamespaceError::Forbidden,
        Errno::NOSPC | Errno::USERS => NamespaceError::Limit,
        Errno::INVAL if lacks("/proc/self/ns/user") => {
            NamespaceError::Unsupported("user namespaces")
        }
        Errno::INVAL if lacks("/proc/self/ns/net") => {
            NamespaceError::Unsupported("network namespaces")
        }
        Errno::INVAL => NamespaceError::Threads,
        errno => NamespaceError::Os(errno.into()),
    }
}

/// A second network namespace, for the other end of a veth pair. It exists as long as this value,
/// or a thread or socket in it.
#[derive(Debug)]
pub struct PeerNamespace {
    file: File,
}

impl PeerNamespace {
    /// Makes one. The process needs the rights of [`Namespace::enter`], or root's.
    ///
    /// # Errors
    ///
    /// See [`NamespaceError`].
    pub fn new() -> Result<Self, NamespaceError> {
        // A thread has its own network namespace; this one makes it, and hands it out as a file.
        let file = on_a_thread(|| {
            unshare(UnshareFlags::NEWNET).map_err(explain)?;
            File::open("/proc/thread-self/ns/net").map_err(NamespaceError::Os)
        })?;
        Ok(Self { file })
    }

    /// Runs `inside` on a thread of its own in this namespace, and waits for it.
    ///
    /// # Errors
    ///
    /// [`NamespaceError`] if the namespace cannot be entered; `inside` did not run then.
    ///
    /// # Panics
    ///
    /// If `inside` panics.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_a_thread(|| {
            self.enter_thread()?;
            Ok(inside())
        })
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    ///
    /// See [`NamespaceError`].
    pub fn enter_thread(&self) -> Result<(), NamespaceError> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(explain)
    }
}

impl AsFd for PeerNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_a_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(body).join())
        .unwrap_or_else(|panic| panic::resume_unwind(panic))
}
