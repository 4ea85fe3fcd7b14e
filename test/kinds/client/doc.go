// Package client holds long-lived connections of each kind to the kinds test
// service, tells whether they are alive and which generation answers, and in which
// words they were told to go.
//
//	c, err := client.Open(ctx, client.WebSocket, dial)
//	generation, err := c.Alive(ctx) // 1
//	// upgrade the service
//	generation, err = c.Alive(ctx) // 1 still
//	// stop it
//	goodbye, err := c.Goodbye(ctx) // client.CloseFrame
//
// It never connects again, and never retries.
package client
