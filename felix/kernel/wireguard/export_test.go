package wireguard

// PrivateOf returns a private key of r.
func PrivateOf(r *Ring) Private { return r.keys[0] }

// Raw returns what p hides.
func Raw(p Private) [32]byte { return p.reveal() }
