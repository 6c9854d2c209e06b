//! The document is what is checked in: a change of it is a change of the API.

#[test]
fn the_openapi_document_is_the_one_that_is_known() {
    insta::assert_json_snapshot!(crate::document());
}
