//! Keeps the engine's order. The smallest policy there is: copy this folder to start another.

use rerank_policy::{Error, Judgment, Policy, Request, first_stage_value};

struct FirstStage;

impl Policy for FirstStage {
    const MANIFEST: &'static str = include_str!("../manifest.json");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let judge = |position| {
            // Without a first stage all documents are equal, and equal scores keep their order.
            let score = first_stage_value(&request, position).unwrap_or(0.0);
            Judgment::scored(position as u32, score)
        };
        Ok((0..request.documents.len()).map(judge).collect())
    }
}

rerank_policy::export!(FirstStage);

#[cfg(test)]
mod tests {
    use rerank_policy::{Document, FirstStage as Kind, Outcome};

    use super::*;

    fn scores(first_stage: Kind, scores: &[Option<f64>]) -> Vec<f64> {
        let document = |score: &Option<f64>| Document {
            id: None,
            score: *score,
            fields: Vec::new(),
        };
        let judgments = FirstStage::rerank(Request {
            query: "q".to_owned(),
            signals: Vec::new(),
            parameters: "{}".to_owned(),
            first_stage,
            documents: scores.iter().map(document).collect(),
            top_n: None,
            explain: false,
        })
        .expect("it cannot fail");
        let score = |(position, judgment): (usize, &Judgment)| match judgment.outcome {
            Outcome::Scored(score) if judgment.index as usize == position => score,
            _ => panic!("document {position}: {judgment:?}"),
        };
        judgments.iter().enumerate().map(score).collect()
    }

    #[test]
    fn the_first_stage_decides() {
        assert_eq!(scores(Kind::Scored, &[Some(7.5), Some(-1.0)]), [7.5, -1.0]);
        assert_eq!(scores(Kind::Ranked, &[None, None]), [1.0, 0.5]);
        assert_eq!(scores(Kind::None, &[None, None]), [0.0, 0.0]);
    }
}
