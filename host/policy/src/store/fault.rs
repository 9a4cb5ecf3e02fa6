//! Where tests have a write to the disk fail. Every operation of the store that changes a file or a
//! folder goes through here, and comes to nothing more than itself but in this crate's own tests
//! (`store/tests.rs`).

#[cfg(not(test))]
pub(super) use real::{backend, copy, open, point, sync, write_all};
#[cfg(test)]
pub(super) use tested::{Plan, backend, copy, open, operations, plan, point, sync, write_all};

#[cfg(not(test))]
mod real {
    use std::fs::File;
    use std::io::{Result, Write};
    use std::path::Path;

    use redb::backends::FileBackend;
    use redb::{Builder, Database, DatabaseError};

    /// Comes before an operation that is done whole or not at all.
    #[inline(always)]
    #[allow(clippy::unnecessary_wraps, reason = "tests have it fail")]
    pub(in crate::store) fn point() -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub(in crate::store) fn write_all(file: &mut File, bytes: &[u8]) -> Result<()> {
        file.write_all(bytes)
    }

    #[inline(always)]
    pub(in crate::store) fn copy(from: &mut File, to: &mut File) -> Result<()> {
        std::io::copy(from, to).map(drop)
    }

    #[inline(always)]
    pub(in crate::store) fn sync(file: &File) -> Result<()> {
        file.sync_all()
    }

    /// What a new database is made on.
    #[inline(always)]
    pub(in crate::store) fn backend(file: FileBackend) -> FileBackend {
        file
    }

    /// Opens a database that is there.
    #[inline(always)]
    pub(in crate::store) fn open(
        builder: &Builder,
        path: &Path,
    ) -> std::result::Result<Database, DatabaseError> {
        builder.open(path)
    }
}

#[cfg(test)]
mod tested {
    use std::cell::RefCell;
    use std::fs::{File, OpenOptions};
    use std::io::{Error, ErrorKind, Read, Result, Write};
    use std::path::Path;
    use std::sync::Mutex;

    use redb::backends::FileBackend;
    use redb::{Builder, DatabaseError, StorageBackend};

    /// What becomes of the n-th operation of this thread, from 0.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::store) enum Plan {
        /// It fails with this error, and the next ones do not.
        Fails(usize, ErrorKind),
        /// It is not done, and no later one either, as if the process had been killed.
        Killed(usize),
        /// A write is done by half; then as [`Killed`](Self::Killed).
        Torn(usize),
        /// As [`Torn`](Self::Torn), and of what the database wrote since it last made it durable some
        /// is lost: the machine lost power.
        Lost(usize),
    }

    #[derive(Default)]
    struct State {
        plan: Option<Plan>,
        count: usize,
        dead: bool,
    }

    thread_local! {
        static STATE: RefCell<State> = RefCell::default();
    }

    /// Begins to count operations, and has one of them fail.
    pub(in crate::store) fn plan(plan: Option<Plan>) {
        STATE.set(State {
            plan,
            ..State::default()
        });
    }

    /// How many operations there were since the last [`plan`].
    pub(in crate::store) fn operations() -> usize {
        STATE.with_borrow(|state| state.count)
    }

    enum Fate {
        Done,
        Fails(ErrorKind),
        Torn { and_lost: bool },
    }

    fn next() -> Fate {
        STATE.with_borrow_mut(|state| {
            let number = state.count;
            state.count += 1;
            if state.dead {
                return Fate::Fails(ErrorKind::Other);
            }
            match state.plan {
                Some(Plan::Fails(at, kind)) if at == number => return Fate::Fails(kind),
                Some(Plan::Killed(at) | Plan::Torn(at) | Plan::Lost(at)) if at == number => {
                    state.dead = true;
                }
                _ => return Fate::Done,
            }
            match state.plan {
                Some(Plan::Killed(_)) => Fate::Fails(ErrorKind::Other),
                plan => Fate::Torn {
                    and_lost: matches!(plan, Some(Plan::Lost(_))),
                },
            }
        })
    }

    fn failure(kind: ErrorKind) -> Error {
        Error::new(kind, "a test has it fail")
    }

    pub(in crate::store) fn point() -> Result<()> {
        match next() {
            Fate::Done => Ok(()),
            Fate::Fails(kind) => Err(failure(kind)),
            Fate::Torn { .. } => Err(failure(ErrorKind::Other)),
        }
    }

    pub(in crate::store) fn write_all(file: &mut File, bytes: &[u8]) -> Result<()> {
        match next() {
            Fate::Done => file.write_all(bytes),
            Fate::Fails(kind) => Err(failure(kind)),
            Fate::Torn { .. } => {
                file.write_all(&bytes[..bytes.len() / 2])?;
                Err(failure(ErrorKind::Other))
            }
        }
    }

    pub(in crate::store) fn copy(from: &mut File, to: &mut File) -> Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        write_all(to, &bytes)
    }

    /// Counts, and syncs nothing: a kill does not show whether it was done, and it is what takes long.
    pub(in crate::store) fn sync(_file: &File) -> Result<()> {
        point()
    }

    pub(in crate::store) fn open(
        builder: &Builder,
        path: &Path,
    ) -> std::result::Result<redb::Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // redb's own `open` makes no database of it either.
        if file.metadata()?.len() == 0 {
            return Err(Error::from(ErrorKind::InvalidData).into());
        }
        builder.create_with_backend(backend(FileBackend::new(file)?))
    }

    pub(in crate::store) fn backend(file: FileBackend) -> Backend {
        Backend {
            file,
            unsynced: Mutex::default(),
        }
    }

    /// The database's file.
    #[derive(Debug)]
    pub(in crate::store) struct Backend {
        file: FileBackend,
        /// What stood where something was written since the last `sync_data`.
        unsynced: Mutex<Vec<(u64, Vec<u8>)>>,
    }

    impl Backend {
        /// Takes back some of what was not durable: every third write, another one for each `number`.
        fn lose(&self) -> Result<()> {
            let number = operations();
            let mut unsynced = self.unsynced.lock().expect("nothing panics with it");
            for (index, (offset, before)) in unsynced.drain(..).enumerate().rev() {
                let is_there = offset + before.len() as u64 <= self.file.len()?;
                if is_there && (index + number).is_multiple_of(3) {
                    self.file.write(offset, &before)?;
                }
            }
            Ok(())
        }

        fn remember(&self, offset: u64, length: usize) -> Result<()> {
            let there = self.file.len()?.saturating_sub(offset);
            let mut before = vec![0; length.min(usize::try_from(there).unwrap_or(0))];
            self.file.read(offset, &mut before)?;
            let mut unsynced = self.unsynced.lock().expect("nothing panics with it");
            unsynced.push((offset, before));
            Ok(())
        }
    }

    impl StorageBackend for Backend {
        fn len(&self) -> Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<()> {
            point()?;
            self.file.set_len(len)
        }

        fn sync_data(&self) -> Result<()> {
            match next() {
                Fate::Done => {
                    let mut unsynced = self.unsynced.lock().expect("nothing panics with it");
                    unsynced.clear();
                    Ok(())
                }
                Fate::Fails(kind) => Err(failure(kind)),
                Fate::Torn { and_lost } => {
                    if and_lost {
                        self.lose()?;
                    }
                    Err(failure(ErrorKind::Other))
                }
            }
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
            match next() {
                Fate::Done => {
                    self.remember(offset, data.len())?;
                    self.file.write(offset, data)
                }
                Fate::Fails(kind) => Err(failure(kind)),
                Fate::Torn { and_lost } => {
                    self.remember(offset, data.len())?;
                    self.file.write(offset, &data[..data.len() / 2])?;
                    if and_lost {
                        self.lose()?;
                    }
                    Err(failure(ErrorKind::Other))
                }
            }
        }

        fn close(&self) -> Result<()> {
            self.file.close()
        }
    }
}
