//! Which life of the kernel this is.

use std::io;

/// The kernel's random id of this boot, 36 characters; all mounts and processes of another one are gone.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_same_twice() {
        let id = super::boot_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(super::boot_id().unwrap(), id);
    }
}
