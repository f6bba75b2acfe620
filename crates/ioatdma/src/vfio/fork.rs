//! What a fork does to pinned pages.

use dmaengine::{Arena, MapError};

/// From this version on `fork` copies pinned pages for the child, and leaves them with the parent
/// (`copy_present_page` asks `page_maybe_dma_pinned`). Linux 5.9 has it too, but is no version that
/// anybody maintained; before, parent and child share them until one of them writes, and if that is
/// the parent, the device goes on writing what is the child's.
const PINS_SURVIVE: (u32, u32) = (5, 10);

/// Whether the kernel that runs leaves `arena` with this process when it forks.
///
/// # Errors
///
/// [`MapError::Inherited`] if it does not.
pub(super) fn check(arena: &Arena) -> Result<(), MapError> {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    if arena.is_inherited() && !pins_survive(&release) {
        return Err(MapError::Inherited { release: release.into_owned() });
    }
    Ok(())
}

/// Whether that version leaves pinned pages with the parent.
fn pins_survive(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    (major, minor) >= PINS_SURVIVE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for release in ["5.10.0-28-amd64", "5.10", "6.1.0", "10.0-rc1", "5.15.167.4-WSL2"] {
            assert!(pins_survive(release), "{release}");
        }
        for release in ["5.9.16", "4.19.0-27-amd64", "3.10.0-1160.el7.x86_64", "5", "", "x.y"] {
            assert!(!pins_survive(release), "{release}");
        }
    }

    #[test]
    fn memory_that_children_do_not_inherit_is_not_asked_about() {
        assert!(check(&Arena::new(4096).unwrap()).is_ok());
    }
}
