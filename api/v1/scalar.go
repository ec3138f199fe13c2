package v1

// CIDR is a network prefix in canonical text, such as 10.244.0.0/16 or
// fd00:10:244::/48: no bits behind the prefix length, IPv6 in lower case and
// shortest form. Unspecified, loopback, link-local and multicast ranges are
// refused, because no pod can be reached there.
//
// A CIDR read from the API server always parses with netip.ParsePrefix.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule=`isCIDR(self)`,message="not a CIDR, expected a prefix such as 10.244.0.0/16 or fd00:10:244::/48"
// +kubebuilder:validation:XValidation:rule=`!isCIDR(self) || cidr(self) == cidr(self).masked()`,message="bits are set behind the prefix length, expected the first address of the range"
// +kubebuilder:validation:XValidation:rule=`!isCIDR(self) || string(cidr(self)) == self`,message="not in canonical form, expected lower case and the longest run of zero groups as ::"
// +kubebuilder:validation:XValidation:rule=`!isCIDR(self) || ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '255.255.255.255/32', '::/127', 'fe80::/10', 'ff00::/8'].all(r, !cidr(r).containsCIDR(self) && !cidr(self).containsCIDR(r))`,message="overlaps a range in which pods cannot be reached, expected none of 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255/32, ::/127, fe80::/10, ff00::/8"
type CIDR string

// Net is a network prefix in canonical text, such as 10.0.0.0/8,
// 203.0.113.7/32 or fd00:10::/32: no bits behind the prefix length, IPv6 in
// lower case and shortest form. Unlike a CIDR it may be any range, because what
// a rule matches need not be where pods are. 0.0.0.0/0 and ::/0 are everything
// of their family.
//
// A Net read from the API server always parses with netip.ParsePrefix and is
// masked.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule=`isCIDR(self) && string(cidr(self).masked()) == self`,message="expected a CIDR in canonical form, such as 10.0.0.0/8, 203.0.113.7/32 or fd00:10::/32, without bits behind the prefix length"
type Net string

// IPAddress is an IP address in canonical text, such as 192.168.1.11 or
// fd00:1::11.
//
// An IPAddress read from the API server always parses with netip.ParseAddr.
//
// +kubebuilder:validation:MaxLength=39
// +kubebuilder:validation:XValidation:rule=`isIP(self) && ip.isCanonical(self)`,message="not an IP address in canonical form, expected one such as 192.168.1.11 or fd00:1::11"
type IPAddress string

// ASNumber is a BGP autonomous system number, 1 to 4294967294. The numbers
// 23456 (RFC 6793) and 65535 (RFC 7300) are reserved and refused. In Go, zero
// means that the field is not set.
//
// +kubebuilder:validation:Minimum=1
// +kubebuilder:validation:Maximum=4294967294
// +kubebuilder:validation:XValidation:rule=`self != 23456 && self != 65535`,message="reserved AS number, expected another one from 1 to 4294967294"
type ASNumber int64
