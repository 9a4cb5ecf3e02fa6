//! Tensors on the host: what crosses between the tokenizer, the policy's handles and a backend.

/// The element types that models here may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// Signed 64-bit integers: token ids and masks.
    I64,
    /// 32-bit floats.
    F32,
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::I64 => "I64",
            Self::F32 => "FP32",
        })
    }
}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// 32-bit floats.
    F32(Vec<f32>),
}

impl TensorData {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Self::I64(data) => data.len(),
            Self::F32(data) => data.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ElementType {
        match self {
            Self::I64(_) => ElementType::I64,
            Self::F32(_) => ElementType::F32,
        }
    }
}

/// Elements and their shape; the product of `dims` is the number of elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dims: Vec<usize>,
    data: TensorData,
}

impl Tensor {
    /// A tensor of this shape.
    ///
    /// # Errors
    /// Both element counts, if the shape does not fit the data.
    pub fn new(dims: Vec<usize>, data: TensorData) -> Result<Self, String> {
        let expected = dims
            .iter()
            .try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        if expected != Some(data.len()) {
            return Err(format!(
                "dimensions {dims:?} hold {} elements, but the data has {}",
                expected.map_or_else(|| "too many".to_owned(), |count| count.to_string()),
                data.len()
            ));
        }
        Ok(Self { dims, data })
    }

    /// The size of each dimension.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements, row-major.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ElementType {
        self.data.element_type()
    }

    /// The shape and the elements.
    pub fn into_parts(self) -> (Vec<usize>, TensorData) {
        (self.dims, self.data)
    }

    /// Bytes of the elements.
    pub fn size_bytes(&self) -> usize {
        match &self.data {
            TensorData::I64(data) => data.len() * 8,
            TensorData::F32(data) => data.len() * 4,
        }
    }
}
