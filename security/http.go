package security

import "github.com/danielgtaylor/huma/v2"

// Routes registers the operations of the room.
func (r *Room) Routes(api huma.API) {
	r.tokenRoutes(api)
	r.secretRoutes(api)
	r.auditRoutes(api)
}
