//! Checks the manifests of fjall's trees before fjall reads them.
//!
//! Every table and every block of fjall carries a checksum that is compared when it is read. The manifest, which says
//! what tables there are, carries one too, in the file `current` beside it; lsm-tree 3.1 writes it and never compares it.
//! A flipped bit there was seen to open without a word and to hide a table (`tests/all/rot.rs`): old rows came back
//! beside new ones. This file compares it. It repairs nothing.
//!
//! It knows one thing of the format: `current` is the number of the manifest (u64), its xxh3 of 128 bits, and the type of
//! that checksum, 0; all little-endian. A test keeps it honest.

use crate::StoreError;
use std::io;
use std::path::Path;

/// Number, checksum, type of the checksum.
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// Compares the manifest of every tree of the database with its checksum.
pub(crate) fn check(dir: &Path) -> Result<(), StoreError> {
    let trees = dir.join("keyspaces");
    let items = match std::fs::read_dir(&trees) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        items => items.map_err(|error| unreadable(&trees, &error))?,
    };
    for item in items {
        check_tree(&item.map_err(|error| unreadable(&trees, &error))?.path())?;
    }
    Ok(())
}

fn check_tree(tree: &Path) -> Result<(), StoreError> {
    let path = tree.join("current");
    let current = match std::fs::read(&path) {
        // A tree whose creation did not get that far; fjall's business.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        current => current.map_err(|error| unreadable(&path, &error))?,
    };
    let Some((number, rest)) = current.split_first_chunk::<8>() else {
        return Err(corrupt(&path, "is incomplete"));
    };
    let Some((checksum, [0])) = rest.split_first_chunk::<16>() else {
        return Err(corrupt(
            &path,
            &format!("is not {CURRENT_BYTES} bytes with a known type"),
        ));
    };
    let path = tree.join(format!("v{}", u64::from_le_bytes(*number)));
    let manifest = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    if xxhash_rust::xxh3::xxh3_128(&manifest).to_le_bytes() == *checksum {
        Ok(())
    } else {
        Err(corrupt(&path, "has a wrong checksum"))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable {
        reason: format!("{}: {error}", path.display()),
    }
}

fn corrupt(path: &Path, what: &str) -> StoreError {
    StoreError::Corrupt {
        reason: format!("{} {what}, at offset 0", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fjall::{Database, KeyspaceCreateOptions};

    /// The one test that fails when another version of fjall writes its manifests in another way.
    #[test]
    fn a_manifest_that_fjall_wrote_has_the_checksum_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path()).unwrap();
        let database = Database::builder(dir.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        rows.insert("key", "value").unwrap();
        rows.rotate_memtable_and_wait().unwrap();
        drop((rows, database));
        check(dir.path()).unwrap();
        let trees = std::fs::read_dir(dir.path().join("keyspaces")).unwrap();
        let mut checked = 0;
        for tree in trees {
            let tree = tree.unwrap().path();
            let current = std::fs::read(tree.join("current")).unwrap();
            assert_eq!(current.len(), CURRENT_BYTES);
            let manifest = tree.join(format!("v{}", current[0]));
            let whole = std::fs::read(&manifest).unwrap();
            let mut bytes = whole.clone();
            bytes[whole.len() / 2] ^= 1;
            std::fs::write(&manifest, &bytes).unwrap();
            let error = check(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(&*manifest.to_string_lossy()), "{error}");
            std::fs::write(&manifest, &whole).unwrap();
            checked += 1;
        }
        assert!(checked > 0, "no manifest was found");
    }
}
