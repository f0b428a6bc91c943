package suite

import (
	"bytes"

	"softhem/api"
)

// knownAnswers are those of the named standards, and for the rest those that
// two other implementations agree on with the inputs that stand at the
// builders of selftest.go: OpenSSL 3.0.19 and noble-curves 2.4.0 for curves
// and symmetric ciphers, noble-post-quantum 0.7.1 beside the libraries here
// for ML-KEM and ML-DSA. The ECDSA signatures were made by OpenSSL.
func knownAnswers() []knownAnswer {
	keys := newTestKeys()
	return []knownAnswer{
		{
			"HMAC-SHA256 (RFC 4231, case 1)",
			"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
			equals(func() []byte { return HMACSHA256(bytes.Repeat([]byte{0x0b}, 20), []byte("Hi There")) }),
		},
		{
			"HKDF-SHA256 (RFC 5869 appendix A.3)",
			"8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
			equals(func() []byte { return HKDFSHA256(bytes.Repeat([]byte{0x0b}, 22), nil, 42) }),
		},
		{
			"XTS-AES-256 (IEEE 1619, vector 10, its first 64 bytes)",
			"1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd",
			equals(func() []byte {
				c, err := NewDiskCipher(unhex("2718281828459045235360287471352662497757247093699959574966967627" +
					"3141592653589793238462643383279502884197169399375105820974944592"))
				if err != nil {
					return nil
				}
				plain := bytes.Repeat(counting(0, 256), 2)
				sector := bytes.Clone(plain)
				c.Encrypt(sector, 0xff)
				back := bytes.Clone(sector)
				if c.Decrypt(back, 0xff); !bytes.Equal(back, plain) {
					return nil
				}
				return sector[:64]
			}),
		},
		{
			"X25519 (RFC 7748; OpenSSL)",
			"c9ea6a3f79a000b60b076d4afc990b272f3f0b5aaa3f0b8713c209273e363863",
			equals(func() []byte {
				own, err := NewX25519Key(counting(1, X25519Size))
				if err != nil {
					return nil
				}
				secret, err := own.Shared(unhex("5714769d116bf76436ae74bc793d2c30ad1903c59ac5273805c7e2698b410c36"))
				if err != nil {
					return nil
				}
				return secret
			}),
		},
		{
			"Ed25519 (RFC 8032 section 7.1, test 3)",
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac" +
				"18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
			equals(func() []byte {
				k, err := NewEd25519Key(unhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"))
				if err != nil {
					return nil
				}
				sig := k.Sign(unhex("af82"))
				if !VerifyEd25519(k.Public(), unhex("af82"), sig) || VerifyEd25519(k.Public(), unhex("af83"), sig) {
					return nil
				}
				return sig
			}),
		},
		{
			"ECDSA P-256 with SHA-256 (FIPS 186-5)",
			"304402205f2ce308a354239927fd952e55439e48ce96c376f62f1ee81366e5e0c8860820" +
				"02206725f5bdfed2d1ee7d974f60736dd494f1fd503ce30a8d011ebffedd372e1045",
			func(want []byte) bool {
				k, err := NewP256Key(counting(1, P256ScalarSize))
				if err != nil {
					return false
				}
				point := unhex("04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f" +
					"4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354")
				return bytes.Equal(k.Point(), point) && VerifyP256(point, []byte("abc"), want) &&
					VerifyP256(point, []byte("abd"), k.Sign([]byte("abd"))) && !VerifyP256(point, []byte("abd"), want)
			},
		},
		{
			"XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, A.3.1)",
			"404142434445464748494a4b4c4d4e4f5051525354555657" +
				"bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb" +
				"731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452" +
				"2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9" +
				"21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49",
			func(want []byte) bool {
				key := unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f")
				plain, err := OpenAEAD(key, want, unhex("50515253c0c1c2c3c4c5c6c7"))
				return err == nil && string(plain) == "Ladies and Gentlemen of the class of '99: "+
					"If I could offer you only one tip for the future, sunscreen would be it."
			},
		},
		keys.mac(api.SHA2x256,
			"a21b1f5d4cf4f73a4dd939750f7a066a7f98cc131cb16a6692759021cfab8181"),
		keys.mac(api.SHA2x384,
			"53bb2e9bc485be41a640ec6e730be25b634d58f0248eeb24eec7da14db9f039c058b71207bc81bab2b02aa9fee89ad44"),
		keys.mac(api.SHA2x512,
			"3652f5c2afe1268656895600c9fae063c634a51f9433f3bc13f1d13f405b0d6b7c2da7f7ab534a4393b203b632e421b270592ac7971eb491"+
				"b0f827f42920e226"),
		keys.mac(api.SHA3x256,
			"12158927a2303142d7c9b91c8e9d2962d8efb67858b7af1b36b393076037e9ec"),
		keys.mac(api.SHA3x384,
			"e49c74ca50f07b8d137ff031809c5ccab893c5b946aa5f7c604ccd755c3c42ac48dae949ddeac59f025d429dc51dba4e"),
		keys.mac(api.SHA3x512,
			"39e6f125b61253c8cc26c4eb1ce2ec96a0dd17a337b11399c7269c979a897c7eb8250f5dbd9785ce693f29d100d9e69429452f76183d366b"+
				"8ae664218ccac5c8"),
		keys.agree(api.SECP256R1, "027a593180860c4037c83c12749845c8ee1424dd297fadcb895e358255d2c7d2b2",
			"02515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f6008588be30da75030abeafd87726e72338ad09ec2bf5d"+
				"ecf3c1f02a4c7466eb"),
		keys.agree(api.SECP384R1, "02e62a3a94e407b16bff82947b56a30380269da64a130371cb641501d9b90b226a93d2e8c059b26530f025bd8d83d55613",
			"03c76f2283dda95cd49b0ed9e733d2904474e37216f124e13d2c9ab4cf01021c49ad9cabb3d0b97499aef2f0ab313fa028edbf4daf069a29"+
				"dfd2d9c4f5c19d1b14b4a6840356f48a2a1e79827dbd96252f78669d7f9ec11c030ce741f77dcc0fe1"),
		keys.agree(api.SECP521R1, "030126f7e6a6df7087c94b0c1b0b194a85669ee810fda2eae12ca64160ded6b26c46475ebedcceae4011da8edd5c6394e0b0bd4209a15227"+
			"f2574656256854a7eb6e46",
			"02000366c8c3b22dfb87d0922163cd4b53cd43a24a29f79292fa4ef1288d69ed139a7fc0552120ea1bdb4f88ca0da4eb91de9b077018d588"+
				"5dbff0e91a66639a9b72a500ba9051b2ab8b809bb3c8928605ef6d21b6a0d511493a8ed1c54d2a66232d56103dd3681d3c04db38ec7541e7"+
				"6bf9f6dc316dba89a5990ba830892b06036a4610f7"),
		keys.agree(api.SECP256K1, "036d6caac248af96f6afa7f904f550253a0f3ef3f5aa2fe6838a95b216691468e2",
			"0284bf7562262bbd6940085748f3be6afa52ae317155181ece31b66351ccffa4b00b4cfc711bca0b9bd6638fc956d843a3421dd8f2e3cbfd"+
				"8c3cd0aaccfca2aa44"),
		keys.agree(api.Curve25519, "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466",
			"07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c26c2c17fdb82161cb21ad16e721315355b64d1763119b10b"+
				"fc962530dc7cc163"),
		keys.agree(api.Curve448, "ba3ff46a84ab42ed08cde0808595fa77a8659a758002a1e119e936ceaa820033b424ef8ec554ac9dd9eb9c06cde691b835f25a78fedd9ae2",
			"bda7365ba1bd9a66f2ef38db6ec5ac5fad5452e990d8b2f88f721fd53363237e775f65205d1d4667d473f0e1f4c57694d2d802e8dff06026"+
				"8d7b06fdfdd74c9fa1fb430f0e99a98cad3c6bccc9834d701aa06665c5bacd856c35489d71c95db0a0ef6491e9eb554a560d2e2101e50748"),
		keys.ecdsa(api.SECP256R1, api.SHA256WithECDSA,
			"3044022062131dc0ca47b1b2a9ea470a5d765c90441f395c7069a398f147bd341e16b1f802200919ee5d48e64212bcd4dd62b713f24385bf"+
				"bdc6f6240a3b2ac0fec44699e201"),
		keys.sign(api.SECP384R1, api.SHA384WithECDSA),
		keys.sign(api.SECP521R1, api.SHA512WithECDSA),
		keys.ecdsa(api.SECP256K1, api.SHA512WithECDSA,
			"3046022100be27a8855028249f644f7d4d96110f452776a8f2c0335a0a56c162bf5c56f1b002210092d811a18c1038a38c378ea3c2b68c0f"+
				"7699dccd0f911dd484c02cfe11350c74"),
		keys.eddsa(api.Ed25519, api.AlgEd25519,
			"79b5562e8fe654f94078b112e8a98ba7901f853ae695bed7e0e3910bad04966471dcb65f01d32556134ca44d130715adb02210919a8a47e0"+
				"16773d742b421895ebf1df3d9bf447b857adec983f055855c9a4260ad9a1f96da4c82f50bec7ce01"),
		keys.eddsa(api.Ed25519, api.AlgEd25519ctx,
			"79b5562e8fe654f94078b112e8a98ba7901f853ae695bed7e0e3910bad04966456cb8bf1bb1ca735e5f7995e7be350a3ce16033fbb2ad335"+
				"9ed5ca9603d1b7dfc5190ebf34781f01227e2817706cacc81cdfe2c0e9c3460840470f44bd571202"),
		keys.eddsa(api.Ed25519, api.AlgEd25519ph,
			"79b5562e8fe654f94078b112e8a98ba7901f853ae695bed7e0e3910bad0496645f74c13f0306506873cf51b85a41db48d9f27f6909d72a8b"+
				"b6d32ea7245cf4886b4927d979eacf70044d3bdc68d0637dbb8fa91cf11ff02b2d43fd149591f608"),
		keys.eddsa(api.Ed448, api.AlgEd448,
			"da918ba3e57fdca0326f46c7ec843ba8fcb0d57fa15f2588a57bae9df558210351e7e15581b24459c0a7cde1e835582d717c0699ea72e8c9"+
				"00136caf4a3b0a810df7a5fe8ae618bb0137723be2350215d674372c2408e069ce1fe3bcb7caec39dcd597a390da7bd06d604d4e18262987"+
				"ed80e9acfb80543e5b5c993bec1c2099c5c0c6d63ddbd4b0e22e9e8064366199f24871225c773b86f57cfdde0f7643db220f0065e9eaafe3"+
				"0a0500"),
		keys.eddsa(api.Ed448, api.AlgEd448ph,
			"da918ba3e57fdca0326f46c7ec843ba8fcb0d57fa15f2588a57bae9df558210351e7e15581b24459c0a7cde1e835582d717c0699ea72e8c9"+
				"00781c0fc0c93ece054205f0abd7248d1695d700ee5d7c3c7f00940c06c03057b64fe09726af3f67f77ac07045dd16512a8958b90ea7f725"+
				"fc00c9e6f552090220f0f7a7ee9b48e6a189f33e9f65891130ee2c4f3cb23240d8e2a0554beddb146bc0cd96c13f462492d4b8b325c25e68"+
				"e32900"),
		cipherAnswer("AES128-ECB", "b0cbf580d4e355236e195bdbfee06cd3"),
		cipherAnswer("AES128-CBC", "7af8a4386db5baad765e53a78e329848"),
		cipherAnswer("AES128-GCM", "ae0c026a899539e6577917486ff41f49567356"),
		cipherAnswer("AES192-ECB", "278cd1beda819d5596dc362a79d96252"),
		cipherAnswer("AES192-CBC", "6f4ed94fe0723bbcb570cfbba57942c2"),
		cipherAnswer("AES192-GCM", "dc41617ea914f881341634de04e553aea7a5e4"),
		cipherAnswer("AES256-ECB", "b4d761d19199dfd6c1277a75fc21697b"),
		cipherAnswer("AES256-CBC", "cf836140228b9ae07436438c396291b9"),
		cipherAnswer("AES256-GCM", "c6c1e717b6c58f1cc0f8f367bd60fc75b76a0e"),
		wrapAnswer("AES128", "c7baf82f8b216ea02f23701ebc760a5b868a9e8561fd998d1eaaef80e31e88a6"),
		wrapAnswer("AES192", "276ac94c45474106ab5be198fe6f3038eb99a4be54fa1a1a54c4cb2107a36c8c"),
		wrapAnswer("AES256", "ab405ddefb5437df6089fa85a48717b965e575f6001e5bfe7d1e6dbcb5d6046e"),
		keys.mlkem(api.MLKEM512,
			"a3d8b6e73cf3c9b6eb15a1fb509792d8e64e9e5338ee727bbe72fb8b74695d7defb506e847527762a49310316e3124ca863c5d4f08cb72ea"+
				"74c44f2f9783680316bf423fe9f49bc3bef470682886159562a154cd6862acb10258d1b437daf91c51775caf589b3e09c3011315f4701e61"+
				"08b0ee8f7b134e78db6dbd718de005ed"),
		keys.mlkem(api.MLKEM768,
			"db4782927013b79c13111f87949d9c9d39ca8c25dd52155d98d6e7f2bad55087a927699556965a825b9abcb1a75e64272fe0abf81e51d876"+
				"f3d30cb6a2480811a687d9eec46c8049553a1ae9194419776b49908431306ef99d92cd4cb1f444252477b505b496ecdb35208dd3991e498c"+
				"fbb7110f4b8f9a802939338ed6fe2744"),
		keys.mlkem(api.MLKEM1024,
			"3a05c1d65fcaec3bec38e85c46d68bbcebf4070bf604e77024b5c19d7163b62716c188e65a7818afd53e092c9e88579ce53982b54c560e4f"+
				"bba0f05205ee037358a1394fb5e57fe5514e97724068e63f4a4476bb850aee7485099ef3ea96043e60d9caac099cfe14f903b802076c4078"+
				"8fb91979b52ce0bee986b2287a1af9a4"),
		keys.mldsa(api.MLDSA44,
			"cec606d352aba0650d219bc77c12af36b36f8089bee9720cb0cbf65e49c20dd8ef8c84191bc546063e9e346b007567c8ffadaeb27a10d8f4"+
				"26dbfe6a2cfc4857"),
		keys.mldsa(api.MLDSA65,
			"e933697f7a3d671b8c294452465230d4d433d337afd25b99dba884175541a855125420ba4250052d557eb989216c820074a3aa23bfc9916b"+
				"1fb5204e40187013"),
		keys.mldsa(api.MLDSA87,
			"5a4abf269018c43865203aeea0502971b94198d7f4a0b640114caf2d68eb1c9012e9ea6db8938939b2cbce0eab77dd6ab9cd02d7679e4fa0"+
				"0c6d7059610f661c"),
	}
}
