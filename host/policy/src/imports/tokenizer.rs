//! `rerank:policy/tokenizer`: texts in, tensor handles out. And `rerank:reading`: how much of them the
//! model can read.

use std::time::Instant;

use rerankd_core::Charge;
use rerankd_inference::manifest::Inputs;
use rerankd_inference::{Encoding, Reading, Verdict};
use wasmtime::component::Resource;

use crate::bindings::contract::tokenizer::{Host, HostEncoding};
use crate::bindings::reading::reading::{self, TextReading};
use crate::imports::GuestState;
use crate::imports::nn::GuestTensor;

/// What an encoding keeps of a row when its tensors were taken, bytes: its length, whether its text was
/// cut, and how much of it was read.
const KEPT_ROW_BYTES: usize = 2 * size_of::<u32>() + size_of::<Reading>();

/// The rows of one tokenizer call; `None` after its tensors were taken.
pub struct GuestEncoding {
    encoding: Option<Encoding>,
    /// What it is charged with.
    held: Charge,
    inputs: Inputs,
    lengths: Vec<u32>,
    truncated: Vec<u32>,
    query_truncated: bool,
    readings: Vec<Reading>,
    query_reading: Option<Reading>,
}

impl GuestState {
    async fn encode(
        &mut self,
        slot: &str,
        query: Option<String>,
        texts: Vec<String>,
    ) -> wasmtime::Result<Result<Resource<GuestEncoding>, String>> {
        self.count_host_call()?;
        let started = Instant::now();
        let model = match self.model(slot) {
            Ok(model) => model,
            Err(problem) => return Ok(Err(problem)),
        };
        let Some(lane) = &self.lane else {
            return Ok(Err("`describe` has no tokenizer".to_owned()));
        };
        // A bi-encoder's query is a text among others; it is known by what it says.
        let query_rows: Vec<u32> = match &query {
            Some(_) => Vec::new(),
            None => (0_u32..)
                .zip(&texts)
                .filter(|(_, text)| **text == self.query)
                .map(|(row, _)| row)
                .collect(),
        };
        self.check_rows("encode", texts.len())?;
        // The texts were copied before the host was called; what is made of them was not.
        let passed = texts
            .iter()
            .chain(&query)
            .map(|text| text.len() + size_of::<String>());
        let passed: usize = passed.sum();
        let most = Encoding::most_bytes(model.tokenizer(), query.as_deref(), &texts);
        let held = Some(self.charge(passed + most)?);
        let encoding = lane.encode_held(model.tokenizer(), query, texts, held);
        let encoded = self.ticking.paused(encoding).await;
        self.usage.tokenize_time += started.elapsed();
        self.usage.host_time += started.elapsed();
        match encoded {
            Ok((mut encoding, held)) => {
                let mut held = held.expect("it was given with the texts");
                held.shrink_to(encoding.size_bytes());
                encoding.tell_query(&query_rows);
                self.usage.tokens.add(encoding.tokens);
                self.usage.texts.note(&encoding, &query_rows);
                // Both ascend.
                let cut = |row: &u32| encoding.truncated.binary_search(row).is_ok();
                self.usage.query_truncated |=
                    encoding.query_truncated || query_rows.iter().any(cut);
                let guest_encoding = GuestEncoding {
                    lengths: encoding.lengths(),
                    truncated: encoding.truncated.clone(),
                    query_truncated: encoding.query_truncated,
                    readings: encoding.readings.clone(),
                    query_reading: encoding.query_reading,
                    inputs: model.manifest().inputs.clone(),
                    encoding: Some(encoding),
                    held,
                };
                Ok(Ok(self.table.push(guest_encoding)?))
            }
            Err(error) => {
                self.usage.host_failure = Some(error.to_string());
                Ok(Err(error.to_string()))
            }
        }
    }
}

impl Host for GuestState {
    async fn encode_pairs(
        &mut self,
        model: String,
        query: String,
        texts: Vec<String>,
    ) -> wasmtime::Result<Result<Resource<GuestEncoding>, String>> {
        self.encode(&model, Some(query), texts).await
    }

    async fn encode_texts(
        &mut self,
        model: String,
        texts: Vec<String>,
    ) -> wasmtime::Result<Result<Resource<GuestEncoding>, String>> {
        self.encode(&model, None, texts).await
    }
}

impl HostEncoding for GuestState {
    fn lengths(&mut self, encoding: Resource<GuestEncoding>) -> wasmtime::Result<Vec<u32>> {
        self.enter()?;
        let rows = self.table.get(&encoding)?.lengths.len();
        self.hand_over(rows * size_of::<u32>())?;
        Ok(self.table.get(&encoding)?.lengths.clone())
    }

    fn truncated(&mut self, encoding: Resource<GuestEncoding>) -> wasmtime::Result<Vec<u32>> {
        self.enter()?;
        let rows = self.table.get(&encoding)?.truncated.len();
        self.hand_over(rows * size_of::<u32>())?;
        Ok(self.table.get(&encoding)?.truncated.clone())
    }

    fn query_truncated(&mut self, encoding: Resource<GuestEncoding>) -> wasmtime::Result<bool> {
        self.enter()?;
        Ok(self.table.get(&encoding)?.query_truncated)
    }

    fn tensors(
        &mut self,
        resource: Resource<GuestEncoding>,
    ) -> wasmtime::Result<Result<Vec<(String, Resource<GuestTensor>)>, String>> {
        self.enter()?;
        let handle = self.table.get_mut(&resource)?;
        let Some(encoding) = handle.encoding.take() else {
            return Ok(Err("the encoding's tensors were taken before".to_owned()));
        };
        if encoding.rows.is_empty() {
            return Ok(Err("the encoding has no rows".to_owned()));
        }
        let inputs = handle.inputs.clone();
        let rows = encoding.rows.len();
        let mut held = self.hold_tensor(encoding.tensor_bytes(&inputs))?;
        let mut tensors = Vec::new();
        for (name, tensor) in encoding.into_tensors(&inputs) {
            let held = held.split(tensor.size_bytes());
            tensors.push((name, self.table.push(GuestTensor::host(tensor, held))?));
        }
        let kept = &mut self.table.get_mut(&resource)?.held;
        kept.shrink_to(rows * KEPT_ROW_BYTES);
        Ok(Ok(tensors))
    }

    fn drop(&mut self, encoding: Resource<GuestEncoding>) -> wasmtime::Result<()> {
        self.enter()?;
        self.table.delete(encoding)?;
        Ok(())
    }
}

/// What the contract's form of one reading takes, bytes.
const READING_BYTES: usize = size_of::<TextReading>();

impl reading::Host for GuestState {
    fn texts(&mut self, encoding: Resource<GuestEncoding>) -> wasmtime::Result<Vec<TextReading>> {
        self.enter()?;
        let rows = self.table.get(&encoding)?.readings.len();
        self.hand_over(rows * READING_BYTES)?;
        let readings = self.table.get(&encoding)?.readings.iter();
        Ok(readings.copied().map(text_reading).collect())
    }

    fn query(
        &mut self,
        encoding: Resource<GuestEncoding>,
    ) -> wasmtime::Result<Option<TextReading>> {
        self.enter()?;
        Ok(self.table.get(&encoding)?.query_reading.map(text_reading))
    }
}

fn text_reading(reading: Reading) -> TextReading {
    TextReading {
        verdict: match reading.verdict {
            Verdict::Read => reading::Verdict::Read,
            Verdict::Unread => reading::Verdict::Unread,
            Verdict::Empty => reading::Verdict::Empty,
        },
        unread: reading.unread,
    }
}
