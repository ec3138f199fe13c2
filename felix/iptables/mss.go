package iptables

// clamped tell both ends of a TCP connection of a pod, when it begins, what the way
// takes as far as the kernel knows.
func clamped() []rule {
	const begins = " -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"
	return specs("-i "+anyPod+begins, "-o "+anyPod+begins)
}
