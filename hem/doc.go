// Package hem is a client for hardware encryption modules that speak the HEM
// REST API: a SoftHEM, or a device.
//
// A [Client] stands for one module and one persona, the local user or the
// administrator. It proves the passphrase to the module without ever sending
// it, asks for one bearer token per scope when a call needs it, keeps those
// tokens until shortly before they end, and logs in once more when the module
// has forgotten them:
//
//	c, err := hem.New(hem.Config{
//		URL:        "https://localhost:8443",
//		CACert:     pem,
//		Passphrase: func(context.Context, api.Role) ([]byte, error) { return ask() },
//	})
//	conf, err := c.Config(ctx)
//
// A Client may be used by any number of goroutines at once. Calls end with
// their context; the package sets no time limit of its own.
//
// # Errors
//
// A refusal by the module is an [*OpError] that wraps an [*api.Error], so
// that errors.Is(err, api.ErrUnauthorized) holds for every 401. A module that
// cannot be reached, or whose certificate is not trusted, is an
// [*UnreachableError], which says what to do next. [ErrProtocol] marks
// answers that no module would give, [ErrOtherModule] a module other than
// the pinned one, [ErrArgument] a call that was never sent. No error text holds
// a passphrase, a key or a token.
//
// # Secrets
//
// Passphrases that [Config.Passphrase] returns, derived keys and shared
// secrets are overwritten after use. Go gives no more than that: the
// garbage collector and the standard library's own hash and key types keep
// copies that nobody can reach to clear.
package hem
