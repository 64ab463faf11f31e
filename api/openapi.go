package api

import _ "embed" // the document

// OpenAPI is the description of the interface, an OpenAPI 3.1 document. It is made from the types of this package and
// the routes of agent/server: UPDATE=1 go test ./agent/server -run OpenAPI
//
//go:embed openapi.json
var OpenAPI []byte
