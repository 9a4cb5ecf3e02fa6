//! Loads a model by the name that the host knows it by, though its manifest lists it under
//! another. The host must answer `not-found`: a policy has only the models of its manifest. The
//! answer is an error with the code and the text that the host gave.

use rerank_policy::{BiEncoder, Error, Judgment, Policy, Request};

struct ForeignModel;

impl Policy for ForeignModel {
    const MANIFEST: &'static str = faulty::manifest!("foreign-model", model);

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        BiEncoder::open("all-minilm-l6-v2")?;
        Err(Error::Internal(
            "the host opened a model that the manifest does not name".to_owned(),
        ))
    }
}

rerank_policy::export!(ForeignModel);
