//! One worker thread: takes a piece of work, does it, takes the next.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::rows::Scratch;
use crate::scheduler::{Piece, Shared};

/// Works until the scheduler stops. A panic in a piece of work fails that piece only.
pub(crate) fn work(shared: &Shared) {
    let mut scratch = Scratch::default();
    while let Some(piece) = shared.next_piece() {
        match piece {
            Piece::Encode(job, texts) => {
                let count = texts.len();
                // Texts without a result after this are reported as the tokenizer's panic.
                let _ = catch_unwind(AssertUnwindSafe(|| job.encode(texts, &shared.statistics)));
                job.texts_done(count);
            }
            Piece::Run(job, rows) => {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    job.run(&rows, &mut scratch, &shared.statistics);
                }));
                if outcome.is_err() {
                    job.fail("it panicked".to_owned());
                }
                shared.run_ended(job.model());
                job.rows_done(rows.len());
            }
        }
    }
}
