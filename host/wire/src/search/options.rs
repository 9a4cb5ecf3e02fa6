//! Options of a request: `ext.rerankd`, `Rerankd-*` headers, `rerankd_*` URL parameters.
