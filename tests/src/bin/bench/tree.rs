//! The tree that is measured, and its sizes: 5,000 small files, one large compressible file, 35,600 entries.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// How large the parts are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Small files, 100 in a directory.
    pub(crate) small: usize,
    /// The large file, MiB.
    pub(crate) large_mib: usize,
    /// Directories with 59 files each (60 entries with the directory) below `many/`.
    pub(crate) directories: usize,
    /// Opens in flight against a server that says nothing.
    pub(crate) opens: usize,
    /// How often each row is measured; the best is taken.
    pub(crate) repeats: usize,
}

impl Sizes {
    /// The sizes of the goals.
    pub(crate) const FULL: Sizes =
        Sizes { small: 5000, large_mib: 384, directories: 593, opens: 2000, repeats: 3 };
    /// For trying the benchmark itself.
    pub(crate) const QUICK: Sizes =
        Sizes { small: 300, large_mib: 32, directories: 20, opens: 200, repeats: 1 };
}

/// Marsaglia's xorshift64: the same tree in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Builds the tree below `root`, and the list of its small files at `names`.
pub(crate) fn build(root: &Path, names: &Path, sizes: Sizes) -> io::Result<()> {
    let mut random = Random(88_172_645_463_325_252);
    let mut list = String::new();
    // Like a Python package: 200 bytes to 16 KB of text.
    for number in 0..sizes.small {
        let name = format!("dir-{:02}/file-{:03}.py", number / 100, number % 100);
        let path = root.join("small").join(&name);
        fs::create_dir_all(path.parent().expect("the name has a directory"))?;
        let length = 200 + random.next() % 8_000;
        let length = if number % 10 == 0 { length * 2 } else { length };
        fs::write(path, text(&mut random, length as usize))?;
        list += &name;
        list.push('\n');
    }
    fs::write(names, list)?;
    fs::write(root.join("small/.cvmfscatalog"), b"")?;

    fs::create_dir_all(root.join("large"))?;
    let mut file = File::create(root.join("large/data"))?;
    for _ in 0..sizes.large_mib {
        file.write_all(&text(&mut random, 1 << 20))?;
    }

    // A software tree: 30 packages with a catalog each, the contents mostly alike so that publishing takes no hours.
    for directory in 0..sizes.directories {
        let package = root.join(format!("many/package-{:02}", directory % 30));
        let path = package.join(format!("part-{directory:03}"));
        fs::create_dir_all(&path)?;
        fs::write(package.join(".cvmfscatalog"), b"")?;
        for number in 0..59 {
            fs::write(
                path.join(format!("module-{number:02}.so")),
                format!("content {}\n", random.next() % 500),
            )?;
        }
    }
    Ok(())
}

/// Text that compresses about threefold.
fn text(random: &mut Random, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        let number = random.next();
        writeln!(
            bytes,
            "    def m_{:04}(self, value): return self.table[{}]",
            number % 10_000,
            (number >> 32) % 1000
        )
        .expect("memory takes all bytes");
    }
    bytes.truncate(length);
    bytes
}
