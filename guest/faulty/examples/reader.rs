//! Asks how much of each text its model can read, and scores by that, whatever the model says:
//! `1 - unread`. The explanation says the rest of it. Not faulty.

use rerank_policy::{BiEncoder, Error, Judgment, Policy, Request};

struct Reader;

impl Policy for Reader {
    const MANIFEST: &'static str = faulty::manifest!("reader", model);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let mut texts = vec![request.query.clone()];
        texts.extend(faulty::texts(&request));
        let embeddings = BiEncoder::open("bi-encoder")?.embed(&texts)?;
        let query = embeddings.reading(0);
        let judge = |index: u32| {
            let row = index as usize + 1;
            let reading = embeddings.reading(row);
            let explanation = format!(
                "unread {:.2}, run {}, empty {}, row {}, query run {}",
                reading.unread,
                reading.is_run,
                reading.is_empty,
                embeddings.row(row).is_some(),
                query.is_run
            );
            Judgment::scored(index, f64::from(1.0 - reading.unread)).with_explanation(explanation)
        };
        Ok((0..request.documents.len() as u32).map(judge).collect())
    }
}

rerank_policy::export!(Reader);
