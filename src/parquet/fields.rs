//! The numbers that `parquet.thrift` gives to the fields that are read or edited here.
//!
//! Source: `src/main/thrift/parquet.thrift` of apache/parquet-format, version 2.12.

/// `FileMetaData`.
pub mod file {
    /// `list<SchemaElement>`, depth first.
    pub const SCHEMA: i16 = 2;
    /// `i64`.
    pub const ROWS: i16 = 3;
    /// `list<RowGroup>`.
    pub const ROW_GROUPS: i16 = 4;
    /// `list<KeyValue>`.
    pub const KEY_VALUES: i16 = 5;
    /// Text.
    pub const CREATED_BY: i16 = 6;
    /// `list<ColumnOrder>`, one for each leaf.
    pub const COLUMN_ORDERS: i16 = 7;
    /// Set where the footer is plain and columns are encrypted.
    pub const ENCRYPTION_ALGORITHM: i16 = 8;
}

/// `SchemaElement`.
pub mod element {
    /// The physical type; set for leaves only.
    pub const TYPE: i16 = 1;
    /// Text.
    pub const NAME: i16 = 4;
    /// `i32`; set for groups.
    pub const CHILDREN: i16 = 5;
    /// `i32`.
    pub const FIELD_ID: i16 = 9;
}

/// `RowGroup`.
pub mod row_group {
    /// `list<ColumnChunk>`, in the order of the leaves.
    pub const COLUMNS: i16 = 1;
    /// `i64`: all pages before compression.
    pub const BYTES: i16 = 2;
    /// `i64`.
    pub const ROWS: i16 = 3;
    /// `list<SortingColumn>`.
    pub const SORTING_COLUMNS: i16 = 4;
    /// `i64`: where the first page starts.
    pub const FILE_OFFSET: i16 = 5;
    /// `i64`.
    pub const COMPRESSED_BYTES: i16 = 6;
}

/// `SortingColumn`.
pub mod sorting {
    /// `i32`: number of a leaf.
    pub const COLUMN: i16 = 1;
}

/// `ColumnChunk`.
pub mod chunk {
    /// Text: the file that holds the chunk; absent where it is this one.
    pub const FILE_PATH: i16 = 1;
    /// `i64`, deprecated: some writers wrote the start of the chunk, others its end.
    pub const FILE_OFFSET: i16 = 2;
    /// `ColumnMetaData`.
    pub const METADATA: i16 = 3;
    /// `i64`.
    pub const OFFSET_INDEX_OFFSET: i16 = 4;
    /// `i32`.
    pub const OFFSET_INDEX_LENGTH: i16 = 5;
    /// `i64`.
    pub const COLUMN_INDEX_OFFSET: i16 = 6;
    /// `i32`.
    pub const COLUMN_INDEX_LENGTH: i16 = 7;
    /// Set where the column is encrypted.
    pub const CRYPTO_METADATA: i16 = 8;
    /// The encrypted `ColumnMetaData`.
    pub const ENCRYPTED_METADATA: i16 = 9;
}

/// `ColumnMetaData`.
pub mod column {
    /// `list<string>`.
    pub const PATH: i16 = 3;
    /// `CompressionCodec`.
    pub const CODEC: i16 = 4;
    /// `i64`: nulls included.
    pub const VALUES: i16 = 5;
    /// `i64`.
    pub const BYTES: i16 = 6;
    /// `i64`: all pages with their headers.
    pub const COMPRESSED_BYTES: i16 = 7;
    /// `i64`.
    pub const DATA_PAGE_OFFSET: i16 = 9;
    /// `i64`; index pages were never written.
    pub const INDEX_PAGE_OFFSET: i16 = 10;
    /// `i64`.
    pub const DICTIONARY_PAGE_OFFSET: i16 = 11;
    /// `list<PageEncodingStats>`.
    pub const PAGE_ENCODINGS: i16 = 13;
    /// `i64`.
    pub const BLOOM_FILTER_OFFSET: i16 = 14;
    /// `i32`; since format 2.10.
    pub const BLOOM_FILTER_LENGTH: i16 = 15;
}

/// `PageEncodingStats`.
pub mod page_encoding {
    /// `PageType`.
    pub const TYPE: i16 = 1;
    /// The `PageType` of data pages of version 2.
    pub const DATA_V2: i64 = 3;
}

/// `KeyValue`.
pub mod key_value {
    /// Text.
    pub const KEY: i16 = 1;
    /// Text, optional.
    pub const VALUE: i16 = 2;
}

/// `OffsetIndex` and `PageLocation`.
pub mod offset_index {
    /// `list<PageLocation>`.
    pub const LOCATIONS: i16 = 1;
    /// `i64` of a `PageLocation`, absolute.
    pub const OFFSET: i16 = 1;
    /// `i32` of a `PageLocation`: the page with its header.
    pub const BYTES: i16 = 2;
    /// `i64` of a `PageLocation`: its first row, counted in the row group.
    pub const ROW: i16 = 3;
}

/// `ColumnIndex`: lists of one element a page.
pub mod column_index {
    /// `list<bool>`.
    pub const NULL_PAGES: i16 = 1;
    /// `list<binary>`.
    pub const LEAST: i16 = 2;
    /// `list<binary>`.
    pub const GREATEST: i16 = 3;
    /// `list<i64>`, optional.
    pub const NULLS: i16 = 5;
}

/// `PageHeader`, `DataPageHeader` and `DataPageHeaderV2`.
pub mod page {
    /// `i32`: the page without its header.
    pub const COMPRESSED_BYTES: i16 = 3;
    /// `DataPageHeader`.
    pub const DATA: i16 = 5;
    /// `DataPageHeaderV2`.
    pub const DATA_V2: i16 = 8;
    /// `i32` of both: nulls included.
    pub const VALUES: i16 = 1;
}

/// `BloomFilterHeader`.
pub mod bloom_filter {
    /// `i32`: bytes that follow the header.
    pub const BYTES: i16 = 1;
}
